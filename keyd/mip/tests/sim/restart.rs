// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Nodes that end and come back, with what they kept or without.

use super::*;

impl World {
    /// The foreign agent is a new one: its kernel was cleared, its memory is gone.
    pub fn restart_fa(&mut self, fa: usize) {
        self.kernels.insert(Who::Fa(fa), Kernel::default());
        self.fas[fa] = ForeignAgent::new(foreign_config(fa), self.clock(Who::Fa(fa)));
    }

    /// The mobile node is a new one, on the links there are.
    pub fn restart_mn(&mut self) {
        self.kernels.insert(Who::Mn, Kernel::default());
        self.mn = MobileNode::new(node_config());
        for (interface, place) in self.places.clone() {
            self.enter(interface, place);
        }
    }

    pub fn restart_ha(&mut self, keep: bool) {
        let bindings: Vec<Binding> = self.ha.bindings().copied().collect();
        self.kernels.insert(Who::Ha, Kernel::default());
        self.ha = HomeAgent::new(home_config(self.fas.len()), self.clock(Who::Ha));
        for binding in bindings.into_iter().filter(|_| keep) {
            let actions = self.ha.restore(binding);
            self.act(Who::Ha, actions);
        }
    }

    /// The home agent's process is a new one that knows only what its kernel's routes say.
    pub fn resume_ha(&mut self) {
        let bindings: Vec<Binding> = self.ha.bindings().copied().collect();
        self.kernels.insert(Who::Ha, Kernel::default());
        let now = self.clock(Who::Ha);
        self.ha = HomeAgent::new(home_config(self.fas.len()), now);
        for binding in bindings {
            let resumed = self.ha.resume(binding.home, binding.care_of, now);
            let (actions, lifetime) = resumed.expect("its own mobile node");
            assert!(lifetime > 0);
            self.act(Who::Ha, actions);
        }
        assert!(self.ha.resume(care_of(0), care_of(0), now).is_none());
    }
}
