// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Rust cannot call by itself: inline functions and macros of the kernel, one line each, and the qdisc's operations,
 * whose members are Rust functions of qdisc.rs. No logic lives here.
 */
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/skbuff.h>
#include <net/netlink.h>
#include <net/pkt_sched.h>
#include <net/sch_generic.h>

/* Functions of qdisc.rs that the table below names. */
int mml_lab_rs_enqueue(struct sk_buff *skb, struct Qdisc *sch, struct sk_buff **to_free);
struct sk_buff *mml_lab_rs_dequeue(struct Qdisc *sch);
int mml_lab_rs_init(struct Qdisc *sch, struct nlattr *opt, struct netlink_ext_ack *extack);
void mml_lab_rs_reset(struct Qdisc *sch);
void mml_lab_rs_destroy(struct Qdisc *sch);
int mml_lab_rs_dump(struct Qdisc *sch, struct sk_buff *skb);

/* What a qdisc has of its own: its timer, and the Rust `Wireless`. */
struct mml_lab_qdisc {
	struct qdisc_watchdog watchdog;
	void *wireless;
};

/* Without change(): another link is another qdisc. */
static struct Qdisc_ops mml_lab_ops __read_mostly = {
	.id = "wireless",
	.priv_size = sizeof(struct mml_lab_qdisc),
	.static_flags = TCQ_F_DEQUEUE_DROPS,
	.enqueue = mml_lab_rs_enqueue,
	.dequeue = mml_lab_rs_dequeue,
	.peek = qdisc_peek_dequeued,
	.init = mml_lab_rs_init,
	.reset = mml_lab_rs_reset,
	.destroy = mml_lab_rs_destroy,
	.dump = mml_lab_rs_dump,
	.owner = THIS_MODULE,
};

int mml_lab_register(void) { return register_qdisc(&mml_lab_ops); }
void mml_lab_unregister(void) { unregister_qdisc(&mml_lab_ops); }

void **mml_lab_slot(struct Qdisc *sch) { return &((struct mml_lab_qdisc *)qdisc_priv(sch))->wireless; }
void mml_lab_watchdog_init(struct Qdisc *sch) { qdisc_watchdog_init(&((struct mml_lab_qdisc *)qdisc_priv(sch))->watchdog, sch); }
void mml_lab_watchdog_schedule(struct Qdisc *sch, u64 at) { qdisc_watchdog_schedule_ns(&((struct mml_lab_qdisc *)qdisc_priv(sch))->watchdog, at); }
void mml_lab_watchdog_cancel(struct Qdisc *sch) { qdisc_watchdog_cancel(&((struct mml_lab_qdisc *)qdisc_priv(sch))->watchdog); }
void mml_lab_lock(struct Qdisc *sch) { sch_tree_lock(sch); }
void mml_lab_unlock(struct Qdisc *sch) { sch_tree_unlock(sch); }
void mml_lab_set_limit(struct Qdisc *sch, u32 limit) { WRITE_ONCE(sch->limit, limit); }

/* The queue's counts. */
void mml_lab_holds(struct Qdisc *sch, const struct sk_buff *skb) { qdisc_update_stats_at_enqueue(sch, qdisc_pkt_len(skb)); }
void mml_lab_gives(struct Qdisc *sch, struct sk_buff *skb) { qdisc_update_stats_at_dequeue(sch, skb); }
void mml_lab_loses(struct Qdisc *sch, const struct sk_buff *skb) { qdisc_qstats_backlog_dec(sch, skb); qdisc_qlen_dec(sch); qdisc_qstats_drop(sch); qdisc_tree_reduce_backlog(sch, 1, qdisc_pkt_len(skb)); }
void mml_lab_free(struct Qdisc *sch, struct sk_buff *skb) { qdisc_dequeue_drop(sch, skb, QDISC_DROP_GENERIC); }
int mml_lab_refuse(struct Qdisc *sch, struct sk_buff *skb, struct sk_buff **to_free) { return qdisc_drop_reason(skb, sch, to_free, QDISC_DROP_OVERLIMIT); }

/* A packet's own octets in its control block, and the rest. */
u64 *mml_lab_arrival(struct sk_buff *skb) { qdisc_cb_private_validate(skb, sizeof(u64)); return (u64 *)qdisc_skb_cb(skb)->data; }
u32 mml_lab_priority(const struct sk_buff *skb) { return skb->priority; }
void mml_lab_skb_drop(struct sk_buff *skb) { kfree_skb(skb); }
u64 mml_lab_now(void) { return ktime_get_ns(); }
const void *mml_lab_nla_data(const struct nlattr *nla) { return nla_data(nla); }
int mml_lab_nla_len(const struct nlattr *nla) { return nla_len(nla); }
