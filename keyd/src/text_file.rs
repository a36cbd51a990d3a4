// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tables in TOML: read with errors of one line that never quote a value, since the value may be a key.

use serde::de::DeserializeOwned;

/// Reads `text`, which is called `name` in errors.
pub fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| before.matches('\n').count() + 1);
        let what = without_quotes(error.message());
        match line {
            Some(line) => format!("{name}: line {line}: {what}"),
            None => format!("{name}: {what}"),
        }
    })
}

/// `message` on one line, without what stands in double quotes: serde quotes the values it can't take.
pub(crate) fn without_quotes(message: &str) -> String {
    let mut outside = String::new();
    for (index, part) in message.split('"').enumerate() {
        outside.push_str(if index % 2 == 0 { part } else { "…" });
    }
    outside.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[expect(dead_code, reason = "only ever refused")]
        spi: u32,
    }

    #[test]
    fn errors_have_one_line_that_says_where() {
        let error = parse::<File>("ha.toml", "spi = 1\nsip = 2\n").unwrap_err();
        assert_eq!(
            error,
            "ha.toml: line 2: unknown field `sip`, expected `spi`"
        );
        assert!(!parse::<File>("ha.toml", "spi = [")
            .unwrap_err()
            .contains('\n'));
    }

    #[test]
    fn errors_never_quote_a_value() {
        let error = parse::<File>("ha.toml", "spi = \"5e5e5e\"").unwrap_err();
        assert_eq!(
            error,
            "ha.toml: line 1: invalid type: string …, expected u32"
        );
    }
}
