// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Rust cannot call by itself: inline functions and macros of the kernel, one line each, and the static operations
 * tables, whose members are Rust functions of net.rs. No logic lives here.
 */
#include <crypto/aead.h>
#include <linux/if_arp.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/hrtimer.h>
#include <linux/icmpv6.h>
#include <linux/ipv6.h>
#include <linux/pkt_sched.h>
#include <linux/scatterlist.h>
#include <linux/skbuff.h>
#include <linux/workqueue.h>
#include <net/dst_cache.h>
#include <net/genetlink.h>
#include <net/gro_cells.h>
#include <net/gso.h>
#include <net/icmp.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/page_pool/helpers.h>
#include <net/netns/generic.h>
#include <net/route.h>
#include <net/sch_generic.h>
#include <net/rtnetlink.h>
#include <net/xfrm.h>

/* Functions of net.rs that the tables below name. */
int mml_rs_net_init(struct net *net, void **slot);
void mml_rs_net_pre_exit(void *ns);
void mml_rs_net_exit(void *ns);
int mml_rs_newlink(struct net_device *dev, void *ns, struct netlink_ext_ack *extack);
void mml_rs_dellink(struct net_device *dev, void *ns);
netdev_tx_t mml_rs_xmit(struct sk_buff *skb, struct net_device *dev);
int mml_rs_esp_rcv(struct sk_buff *skb);
int mml_rs_esp_encap_rcv(struct sk_buff *skb);
int mml_rs_esp_err(struct sk_buff *skb, u32 info);
int mml_rs_esp6_err(struct sk_buff *skb, u8 type, int offset, u32 info);
unsigned int mml_rs_guard(void *priv, struct sk_buff *skb, const struct nf_hook_state *state);
unsigned int mml_rs_relay(void *priv, struct sk_buff *skb, const struct nf_hook_state *state);
int mml_rs_pfkey_doit(struct sk_buff *skb, struct genl_info *info);
int mml_rs_pfkey_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int mml_rs_stats_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int mml_rs_set_doit(struct sk_buff *skb, struct genl_info *info);
void mml_rs_deferred(struct work_struct *work);
void mml_rs_timer(struct hrtimer *timer);
void mml_rs_alarm_timer(struct hrtimer *timer);
void mml_rs_alarm_work(struct work_struct *work);
void mml_rs_interface_gone(void *ns, int index);

/* Per-namespace state: net_generic() holds one pointer to the Rust `Namespace`. */
static unsigned int mml_net_id __read_mostly;

void *mml_net_ns(const struct net *net) { return READ_ONCE(*(void **)net_generic(net, mml_net_id)); }
/* The same for those who are in an RCU read-side critical section already: net_generic() would enter another. */
void *mml_net_ns_rcu(const struct net *net) { return READ_ONCE(*(void **)rcu_dereference_raw(net->gen)->ptr[mml_net_id]); }
static int mml_net_init(struct net *net) { return mml_rs_net_init(net, net_generic(net, mml_net_id)); }
static void mml_net_pre_exit(struct net *net) { mml_rs_net_pre_exit(mml_net_ns(net)); }
static void mml_net_exit(struct net *net) { mml_rs_net_exit(mml_net_ns(net)); }

static struct pernet_operations mml_pernet_ops = {
	.init = mml_net_init,
	.pre_exit = mml_net_pre_exit,
	.exit = mml_net_exit,
	.id = &mml_net_id,
	.size = sizeof(void *),
};

int mml_pernet_register(void) { return register_pernet_subsys(&mml_pernet_ops); }
void mml_pernet_unregister(void) { unregister_pernet_subsys(&mml_pernet_ops); }

/* The device. */
struct mml_dev { struct gro_cells cells; };

static int mml_dev_init(struct net_device *dev) { return gro_cells_init(&((struct mml_dev *)netdev_priv(dev))->cells, dev); }
static void mml_dev_uninit(struct net_device *dev) { gro_cells_destroy(&((struct mml_dev *)netdev_priv(dev))->cells); }

static const struct net_device_ops mml_netdev_ops = {
	.ndo_init = mml_dev_init,
	.ndo_uninit = mml_dev_uninit,
	.ndo_start_xmit = mml_rs_xmit,
};

/* A tunnel's features: what send.rs can take as it is (frags, partial checksums, TCP super-packets). */
#define MML_FEATURES (NETIF_F_SG | NETIF_F_FRAGLIST | NETIF_F_HW_CSUM | NETIF_F_HIGHDMA | NETIF_F_TSO | NETIF_F_TSO6 | NETIF_F_TSO_ECN | NETIF_F_TSO_MANGLEID)

static void mml_dev_setup(struct net_device *dev)
{
	dev->netdev_ops = &mml_netdev_ops;
	dev->type = ARPHRD_NONE;
	dev->flags = IFF_POINTOPOINT | IFF_NOARP;
	dev->priv_flags |= IFF_NO_QUEUE;
	dev->lltx = true;
	dev->netns_immutable = true;
	dev->needs_free_netdev = true;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	dev->features |= MML_FEATURES;
	dev->hw_features |= MML_FEATURES;
	dev->mtu = ETH_DATA_LEN - 68; /* docs/wire.md 1.6e: what 1,500 octets carry with implicit IVs */
	dev->min_mtu = IPV4_MIN_MTU;
	dev->max_mtu = IP_MAX_MTU - 87;
	netif_keep_dst(dev);
}

static int mml_newlink(struct net_device *dev, struct rtnl_newlink_params *params, struct netlink_ext_ack *extack)
{
	return mml_rs_newlink(dev, mml_net_ns(dev_net(dev)), extack);
}

static void mml_dellink(struct net_device *dev, struct list_head *head)
{
	mml_rs_dellink(dev, mml_net_ns(dev_net(dev)));
	unregister_netdevice_queue(dev, head);
}

static struct rtnl_link_ops mml_link_ops __read_mostly = {
	.kind = "mml",
	.priv_size = sizeof(struct mml_dev),
	.setup = mml_dev_setup,
	.newlink = mml_newlink,
	.dellink = mml_dellink,
};

int mml_link_register(void) { return rtnl_link_register(&mml_link_ops); }
void mml_link_unregister(void) { rtnl_link_unregister(&mml_link_ops); }
int mml_dev_register(struct net_device *dev) { return register_netdevice(dev); }
struct net *mml_dev_net(const struct net_device *dev) { return dev_net(dev); }
bool mml_dev_is_loopback(const struct net_device *dev) { return dev->flags & IFF_LOOPBACK; }
void mml_dev_tx_add(struct net_device *dev, unsigned int packets, unsigned int len) { dev_sw_netstats_tx_add(dev, packets, len); }
void mml_dev_rx_add(struct net_device *dev, unsigned int len) { dev_sw_netstats_rx_add(dev, len); }
void mml_dev_tx_dropped(struct net_device *dev) { dev_core_stats_tx_dropped_inc(dev); }
unsigned int mml_dev_index(const struct net_device *dev) { return dev->ifindex; }
int mml_dev_gro_receive(struct net_device *dev, struct sk_buff *skb) { return gro_cells_receive(&((struct mml_dev *)netdev_priv(dev))->cells, skb); }

/* Interfaces that go: nothing that is kept waits for them. */
static int mml_netdev_event(struct notifier_block *nb, unsigned long event, void *info)
{
	struct net_device *dev = netdev_notifier_info_to_dev(info);

	if (event == NETDEV_DOWN || event == NETDEV_UNREGISTER)
		mml_rs_interface_gone(mml_net_ns(dev_net(dev)), dev->ifindex);
	return NOTIFY_DONE;
}

static struct notifier_block mml_notifier = { .notifier_call = mml_netdev_event };

int mml_notifier_register(void) { return register_netdevice_notifier(&mml_notifier); }
void mml_notifier_unregister(void) { unregister_netdevice_notifier(&mml_notifier); }

/* The ESP protocol chain, in front of XFRM's own handler: SPIs that are not ours go on to it. */
/* What a socket with UDP_ENCAP has taken out of UDP (RFC 3948). */
static int mml_esp_input(struct sk_buff *skb, int nexthdr, __be32 spi, int encap_type) { return mml_rs_esp_encap_rcv(skb); }
static int mml_esp_cb(struct sk_buff *skb, int err) { return 1; }

static struct xfrm4_protocol mml_esp4_protocol __read_mostly = {
	.handler = mml_rs_esp_rcv,
	.input_handler = mml_esp_input,
	.cb_handler = mml_esp_cb,
	.err_handler = mml_rs_esp_err,
	.priority = 200,
};

static int mml_esp6_err(struct sk_buff *skb, struct inet6_skb_parm *opt, u8 type, u8 code, int offset, __be32 info)
{
	return mml_rs_esp6_err(skb, type, offset, ntohl(info));
}

static struct xfrm6_protocol mml_esp6_protocol __read_mostly = {
	.handler = mml_rs_esp_rcv,
	.input_handler = mml_esp_input,
	.cb_handler = mml_esp_cb,
	.err_handler = mml_esp6_err,
	.priority = 200,
};

int mml_esp6_register(void) { return xfrm6_protocol_register(&mml_esp6_protocol, IPPROTO_ESP); }
int mml_esp6_unregister(void) { return xfrm6_protocol_deregister(&mml_esp6_protocol, IPPROTO_ESP); }
int mml_esp_register(void) { return xfrm4_protocol_register(&mml_esp4_protocol, IPPROTO_ESP); }
int mml_esp_unregister(void) { return xfrm4_protocol_deregister(&mml_esp4_protocol, IPPROTO_ESP); }

/*
 * Netfilter. The guard looks first where packets come in or are forwarded (before a rule may hand the flow to a flowtable,
 * which would never show it again) and last where they leave; the relay after everyone's rules.
 */
static const struct nf_hook_ops mml_guard_ops[] = {
	{ .hook = mml_rs_guard, .pf = NFPROTO_IPV4, .hooknum = NF_INET_PRE_ROUTING, .priority = NF_IP_PRI_CONNTRACK_DEFRAG - 1 },
	{ .hook = mml_rs_guard, .pf = NFPROTO_IPV4, .hooknum = NF_INET_FORWARD, .priority = NF_IP_PRI_FIRST },
	{ .hook = mml_rs_guard, .pf = NFPROTO_IPV4, .hooknum = NF_INET_LOCAL_OUT, .priority = NF_IP_PRI_LAST },
	{ .hook = mml_rs_guard, .pf = NFPROTO_IPV6, .hooknum = NF_INET_PRE_ROUTING, .priority = NF_IP6_PRI_CONNTRACK_DEFRAG - 1 },
	{ .hook = mml_rs_guard, .pf = NFPROTO_IPV6, .hooknum = NF_INET_FORWARD, .priority = NF_IP6_PRI_FIRST },
	{ .hook = mml_rs_guard, .pf = NFPROTO_IPV6, .hooknum = NF_INET_LOCAL_OUT, .priority = NF_IP6_PRI_LAST },
};
static const struct nf_hook_ops mml_relay_ops[] = {
	{ .hook = mml_rs_relay, .pf = NFPROTO_IPV4, .hooknum = NF_INET_FORWARD, .priority = NF_IP_PRI_LAST - 1 },
	{ .hook = mml_rs_relay, .pf = NFPROTO_IPV6, .hooknum = NF_INET_FORWARD, .priority = NF_IP6_PRI_LAST - 1 },
};

int mml_guard_register(struct net *net) { return nf_register_net_hooks(net, mml_guard_ops, ARRAY_SIZE(mml_guard_ops)); }
void mml_guard_unregister(struct net *net) { nf_unregister_net_hooks(net, mml_guard_ops, ARRAY_SIZE(mml_guard_ops)); }
int mml_relay_register(struct net *net) { return nf_register_net_hooks(net, mml_relay_ops, ARRAY_SIZE(mml_relay_ops)); }
void mml_relay_unregister(struct net *net) { nf_unregister_net_hooks(net, mml_relay_ops, ARRAY_SIZE(mml_relay_ops)); }
struct net *mml_state_net(const struct nf_hook_state *state) { return state->net; }
u8 mml_state_hook(const struct nf_hook_state *state) { return state->hook; }
struct net_device *mml_state_in(const struct nf_hook_state *state) { return state->in; }
struct net_device *mml_state_out(const struct nf_hook_state *state) { return state->out; }

/* Generic netlink. */
enum { MML_CMD_UNSPEC, MML_CMD_PFKEY, MML_CMD_STATS, MML_CMD_SET };
enum { MML_A_UNSPEC, MML_A_PFKEY, MML_A_STATS_SCOPE, MML_A_SPI, MML_A_SRC, MML_A_DST, MML_A_ROLE, MML_A_COUNTER, MML_A_NAME, MML_A_VALUE, MML_A_INNER_SRC, MML_A_INNER_DST, __MML_A_MAX };

static const struct nla_policy mml_counter_policy[__MML_A_MAX] = {
	[MML_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[MML_A_VALUE] = { .type = NLA_U64 },
};
static const struct nla_policy mml_policy[__MML_A_MAX] = {
	[MML_A_PFKEY] = { .type = NLA_BINARY },
	[MML_A_COUNTER] = NLA_POLICY_NESTED(mml_counter_policy),
	[MML_A_STATS_SCOPE] = { .type = NLA_NUL_STRING, .len = 15 },
};
/* Nothing is to be had without CAP_NET_ADMIN over the network namespace (docs/wire.md 2.1a). */
static const struct genl_small_ops mml_genl_ops[] = {
	{ .cmd = MML_CMD_PFKEY, .flags = GENL_UNS_ADMIN_PERM, .doit = mml_rs_pfkey_doit, .dumpit = mml_rs_pfkey_dumpit },
	{ .cmd = MML_CMD_STATS, .flags = GENL_UNS_ADMIN_PERM, .dumpit = mml_rs_stats_dumpit },
	{ .cmd = MML_CMD_SET, .flags = GENL_UNS_ADMIN_PERM, .doit = mml_rs_set_doit },
};
static const struct genl_multicast_group mml_genl_groups[] = {
	{ .name = "events", .flags = GENL_MCAST_CAP_NET_ADMIN },
};
static struct genl_family mml_genl_family __ro_after_init = {
	.name = "mml",
	.version = 1,
	.maxattr = __MML_A_MAX - 1,
	.policy = mml_policy,
	.netnsok = true,
	.module = THIS_MODULE,
	.small_ops = mml_genl_ops,
	.n_small_ops = ARRAY_SIZE(mml_genl_ops),
	.resv_start_op = MML_CMD_SET + 1,
	.mcgrps = mml_genl_groups,
	.n_mcgrps = ARRAY_SIZE(mml_genl_groups),
};

int mml_genl_register(void) { return genl_register_family(&mml_genl_family); }
void mml_genl_unregister(void) { genl_unregister_family(&mml_genl_family); }
struct net *mml_genl_net(const struct genl_info *info) { return genl_info_net(info); }
struct net *mml_dump_net(const struct netlink_callback *cb) { return sock_net(cb->skb->sk); }
u32 mml_dump_port(const struct netlink_callback *cb) { return NETLINK_CB(cb->skb).portid; }
struct nlattr **mml_dump_attrs(struct netlink_callback *cb) { return genl_dumpit_info(cb)->info.attrs; }
struct sk_buff *mml_genl_new(size_t size, gfp_t gfp) { return genlmsg_new(size, gfp); }
void *mml_genl_put(struct sk_buff *skb, u32 portid, u32 seq, int flags, u8 cmd) { return genlmsg_put(skb, portid, seq, &mml_genl_family, flags, cmd); }
void mml_genl_end(struct sk_buff *skb, void *hdr) { genlmsg_end(skb, hdr); }
void mml_genl_cancel(struct sk_buff *skb, void *hdr) { genlmsg_cancel(skb, hdr); }
int mml_genl_reply(struct sk_buff *skb, struct genl_info *info) { return genlmsg_reply(skb, info); }
int mml_genl_multicast(struct net *net, struct sk_buff *skb, gfp_t gfp) { return genlmsg_multicast_netns(&mml_genl_family, net, skb, 0, 0, gfp); }
bool mml_genl_has_listeners(struct net *net) { return genl_has_listeners(&mml_genl_family, net, 0); }
struct nlattr *mml_nla_nest_start(struct sk_buff *skb, int type) { return nla_nest_start(skb, type); }
void mml_nla_nest_end(struct sk_buff *skb, struct nlattr *start) { nla_nest_end(skb, start); }
const void *mml_nla_data(const struct nlattr *nla) { return nla_data(nla); }
int mml_nla_len(const struct nlattr *nla) { return nla_len(nla); }
int mml_nla_type(const struct nlattr *nla) { return nla_type(nla); }
bool mml_nla_ok(const struct nlattr *nla, int remaining) { return nla_ok(nla, remaining); }
const struct nlattr *mml_nla_next(const struct nlattr *nla, int *remaining) { return nla_next(nla, remaining); }

/* Socket buffers. */
bool mml_skb_may_pull(struct sk_buff *skb, unsigned int len) { return pskb_may_pull(skb, len); }
bool mml_skb_cloned(const struct sk_buff *skb) { return skb_cloned(skb); }
bool mml_skb_is_gso(const struct sk_buff *skb) { return skb_is_gso(skb); }
unsigned int mml_skb_gso_size(const struct sk_buff *skb) { return skb_shinfo(skb)->gso_size; }
unsigned int mml_skb_gso_type(const struct sk_buff *skb) { return skb_shinfo(skb)->gso_type; }
struct sk_buff *mml_skb_gso_segment(struct sk_buff *skb) { return __skb_gso_segment(skb, 0, true); }
bool mml_skb_csum_partial(const struct sk_buff *skb) { return skb->ip_summed == CHECKSUM_PARTIAL; }
int mml_skb_csum_start(const struct sk_buff *skb) { return skb_checksum_start_offset(skb); }
unsigned int mml_skb_csum_offset(const struct sk_buff *skb) { return skb->csum_offset; }
unsigned int mml_skb_protocol(const struct sk_buff *skb) { return ntohs(skb->protocol); }
int mml_skb_network_offset(const struct sk_buff *skb) { return skb_network_offset(skb); }
bool mml_skb_dst_xfrm(const struct sk_buff *skb) { return skb_dst(skb) && dst_xfrm(skb_dst(skb)); }
bool mml_skb_xfrm_done(const struct sk_buff *skb) { return IPCB(skb)->flags & IPSKB_XFRM_TRANSFORMED; }
bool mml_skb_xfrm_done6(const struct sk_buff *skb) { return IP6CB(skb)->flags & IP6SKB_XFRM_TRANSFORMED; }
bool mml_skb_sec_path(const struct sk_buff *skb) { return secpath_exists(skb); }
struct sk_buff *mml_skb_alloc(unsigned int len) { return alloc_skb(len, GFP_ATOMIC); }
unsigned int mml_skb_head_size(unsigned int len) { return SKB_DATA_ALIGN(len) + SKB_DATA_ALIGN(sizeof(struct skb_shared_info)); }
void mml_skb_mark_for_recycle(struct sk_buff *skb) { skb_mark_for_recycle(skb); }
void mml_skb_reserve(struct sk_buff *skb, unsigned int len) { skb_reserve(skb, len); }
static const struct page_pool_params mml_pool_params = { .pool_size = 256, .nid = NUMA_NO_NODE };
struct page_pool *mml_pool_new(int cpu) { return page_pool_create_percpu(&mml_pool_params, cpu); }
void mml_pool_retire(struct page_pool *pool) { WRITE_ONCE(pool->cpuid, -1); }
void *mml_pool_alloc(struct page_pool *pool, unsigned int *size) { return page_pool_dev_alloc_va(pool, size); }
void mml_pool_free(struct page_pool *pool, void *va) { page_pool_free_va(pool, va, false); }
u8 *mml_skb_put(struct sk_buff *skb, unsigned int len) { return __skb_put(skb, len); }
void mml_skb_consume(struct sk_buff *skb) { consume_skb(skb); }
void mml_skb_drop(struct sk_buff *skb) { kfree_skb(skb); }
void mml_skb_outgoing(struct sk_buff *skb, const struct sk_buff *from, unsigned int transport)
{
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, transport);
	skb->protocol = htons(ETH_P_IP);
	skb->priority = from->priority;
	skb->mark = from->mark;
	memset(IPCB(skb), 0, sizeof(*IPCB(skb)));
}
void mml_skb_outgoing6(struct sk_buff *skb, const struct sk_buff *from, unsigned int transport)
{
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, transport);
	skb->protocol = htons(ETH_P_IPV6);
	skb->priority = from->priority;
	skb->mark = from->mark;
	memset(IP6CB(skb), 0, sizeof(*IP6CB(skb)));
}
void mml_skb_incoming(struct sk_buff *skb, struct net_device *dev, u16 protocol)
{
	skb->dev = dev;
	skb->protocol = htons(protocol);
	skb->ip_summed = CHECKSUM_NONE;
	skb->pkt_type = PACKET_HOST;
	skb_clear_hash(skb);
	skb_reset_mac_header(skb);
	skb_reset_mac_len(skb);
	skb_reset_network_header(skb);
	skb_scrub_packet(skb, false);
}
void mml_skb_checksum_good(struct sk_buff *skb)
{
	skb->ip_summed = CHECKSUM_UNNECESSARY;
}

void mml_skb_keep(struct sk_buff *skb)
{
	nf_reset_ct(skb);
	skb_ext_reset(skb);
	skb_dst_drop(skb);
	skb->dev = NULL;
}
void mml_skb_hurry(struct sk_buff *skb) { skb->priority = TC_PRIO_INTERACTIVE; }
struct sk_buff *mml_skb_apart(struct sk_buff *skb) { return pskb_copy(skb, GFP_ATOMIC); }
void mml_skb_orphan(struct sk_buff *skb) { skb_orphan(skb); }
void mml_skb_stamp(struct sk_buff *skb, u64 ns) { skb_set_delivery_time(skb, ns_to_ktime(ns), SKB_CLOCK_MONOTONIC); }
u64 mml_skb_stamped(const struct sk_buff *skb) { return ktime_to_ns(skb->tstamp); }
void mml_skb_unstamp(struct sk_buff *skb) { skb_set_delivery_time(skb, 0, SKB_CLOCK_REALTIME); }
void mml_skb_set_dev(struct sk_buff *skb, struct net_device *dev) { skb->dev = dev; }
struct dst_entry *mml_skb_dst(const struct sk_buff *skb) { return skb_dst(skb); }
void mml_skb_dst_drop(struct sk_buff *skb) { skb_dst_drop(skb); }
struct net_device *mml_skb_came_by(struct net *net, const struct sk_buff *skb) { return dev_get_by_index_rcu(net, skb->skb_iif); }

/* Routes. */
static_assert(offsetof(struct rtable, dst) == 0);
struct rtable *mml_route_again(struct net *net, const struct sk_buff *skb, u8 protocol, __be16 from, __be16 to)
{
	struct flowi4 fl4 = { .saddr = ip_hdr(skb)->saddr, .daddr = ip_hdr(skb)->daddr, .flowi4_proto = protocol, .fl4_sport = from, .fl4_dport = to, .flowi4_dscp = ip4h_dscp(ip_hdr(skb)), .flowi4_mark = skb->mark, .flowi4_flags = FLOWI_FLAG_ANYSRC };

	return ip_route_output_flow(net, &fl4, NULL);
}
struct rtable *mml_route_own(struct net *net, const struct sk_buff *skb, u8 protocol, u32 mark, __be16 from, __be16 to)
{
	struct flowi4 fl4 = { .saddr = ip_hdr(skb)->saddr, .daddr = ip_hdr(skb)->daddr, .flowi4_proto = protocol, .flowi4_mark = mark, .fl4_sport = from, .fl4_dport = to, .flowi4_flags = FLOWI_FLAG_ANYSRC };

	return ip_route_output_key(net, &fl4);
}
bool mml_route_on(struct sk_buff *skb, struct net_device *dev) { return !ip_route_input_noref(skb, ip_hdr(skb)->daddr, ip_hdr(skb)->saddr, ip4h_dscp(ip_hdr(skb)), dev) && skb_rtable(skb)->rt_type == RTN_UNICAST; }
int mml_dst_output(struct net *net, struct sk_buff *skb) { return dst_output(net, NULL, skb); }
struct rtable *mml_route(struct net *net, __be32 src, __be32 dst, u8 protocol, u32 mark, __be16 from, __be16 to)
{
	struct flowi4 fl4 = { .saddr = src, .daddr = dst, .flowi4_proto = protocol, .flowi4_mark = mark, .fl4_sport = from, .fl4_dport = to };

	return ip_route_output_key(net, &fl4);
}
struct dst_entry *mml_route_again6(struct net *net, const struct sk_buff *skb, u8 protocol, __be16 from, __be16 to)
{
	struct flowi6 fl6 = { .saddr = ipv6_hdr(skb)->saddr, .daddr = ipv6_hdr(skb)->daddr, .flowlabel = ip6_flowinfo(ipv6_hdr(skb)), .flowi6_proto = protocol, .fl6_sport = from, .fl6_dport = to, .flowi6_mark = skb->mark, .flowi6_flags = FLOWI_FLAG_ANYSRC };

	return ip6_dst_lookup_flow(net, NULL, &fl6, NULL);
}
struct dst_entry *mml_route_own6(struct net *net, const struct sk_buff *skb, u8 protocol, u32 mark, __be16 from, __be16 to)
{
	struct flowi6 fl6 = { .saddr = ipv6_hdr(skb)->saddr, .daddr = ipv6_hdr(skb)->daddr, .flowi6_proto = protocol, .flowi6_mark = mark, .fl6_sport = from, .fl6_dport = to, .flowi6_flags = FLOWI_FLAG_ANYSRC };

	return ip6_dst_lookup_flow(net, NULL, &fl6, NULL);
}
struct dst_entry *mml_route6(struct net *net, const struct in6_addr *src, const struct in6_addr *dst, u8 protocol, u32 mark, __be16 from, __be16 to)
{
	struct flowi6 fl6 = { .saddr = *src, .daddr = *dst, .flowi6_proto = protocol, .flowi6_mark = mark, .fl6_sport = from, .fl6_dport = to };

	return ip6_dst_lookup_flow(net, NULL, &fl6, NULL);
}
void mml_routes_expire(struct net *net) { rt_genid_bump_all(net); }
bool mml_is_err(const void *p) { return IS_ERR(p); }
struct net_device *mml_dst_dev(const struct dst_entry *dst) { return dst->dev; }
bool mml_dst_is_up(const struct dst_entry *dst) { return netif_running(dst->dev) && netif_carrier_ok(dst->dev) && rcu_access_pointer(netdev_get_tx_queue(dst->dev, 0)->qdisc) != &noop_qdisc; }
unsigned int mml_dst_mtu(const struct dst_entry *dst) { return dst_mtu(dst); }
unsigned int mml_dst_headroom(const struct dst_entry *dst) { return LL_RESERVED_SPACE(dst->dev); }
static struct Qdisc *mml_dst_qdisc(const struct dst_entry *dst) { return rcu_dereference_check(netdev_get_tx_queue(dst->dev, 0)->qdisc, rcu_read_lock_bh_held()); }
unsigned int mml_dst_qlen(const struct dst_entry *dst) { return qdisc_qlen_sum(mml_dst_qdisc(dst)); }
unsigned int mml_dst_qlimit(const struct dst_entry *dst) { return READ_ONCE(mml_dst_qdisc(dst)->limit) ?: READ_ONCE(dst->dev->tx_queue_len) ?: UINT_MAX; }
int mml_dst_ttl(const struct dst_entry *dst) { return ip4_dst_hoplimit(dst); }
void mml_dst_hold(struct dst_entry *dst) { dst_hold(dst); }
void mml_dst_release(struct dst_entry *dst) { dst_release(dst); }
void mml_skb_dst_set(struct sk_buff *skb, struct dst_entry *dst) { skb_dst_set(skb, dst); }
void mml_skb_update_pmtu(struct sk_buff *skb, u32 mtu) { skb_dst_update_pmtu_no_confirm(skb, mtu); }
void mml_icmp_frag_needed(struct sk_buff *skb, u32 mtu) { icmp_ndo_send(skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, htonl(mtu)); }
void mml_icmp6_too_big(struct sk_buff *skb, u32 mtu) { icmpv6_ndo_send(skb, ICMPV6_PKT_TOOBIG, 0, mtu); }
void mml_update_pmtu6(struct sk_buff *skb, struct net *net, u32 mtu, u32 mark) { ip6_update_pmtu(skb, net, htonl(mtu), 0, mark, sock_net_uid(net, NULL)); }
void mml_redirect6(struct sk_buff *skb, struct net *net) { ip6_redirect(skb, net, skb->dev->ifindex, 0, sock_net_uid(net, NULL)); }
void mml_update_pmtu(struct sk_buff *skb, struct net *net, u32 mtu) { ipv4_update_pmtu(skb, net, mtu, 0, IPPROTO_ESP); }
void mml_redirect(struct sk_buff *skb, struct net *net) { ipv4_redirect(skb, net, 0, IPPROTO_ESP); }
int mml_icmp_type(const struct sk_buff *skb) { return icmp_hdr(skb)->type; }
int mml_icmp_code(const struct sk_buff *skb) { return icmp_hdr(skb)->code; }
void mml_dst_cache_reset(struct dst_cache *cache) { dst_cache_reset(cache); }

/* Crypto. */
unsigned int mml_aead_reqsize(struct crypto_aead *tfm) { return crypto_aead_reqsize(tfm); }
void mml_aead_free(struct crypto_aead *tfm) { crypto_free_aead(tfm); }
void mml_aead_prepare(struct aead_request *req, struct crypto_aead *tfm, struct scatterlist *sg, unsigned int ad, unsigned int len, u8 *iv)
{
	aead_request_set_tfm(req, tfm);
	aead_request_set_callback(req, 0, NULL, NULL);
	aead_request_set_crypt(req, sg, sg, len, iv);
	aead_request_set_ad(req, ad);
}
size_t mml_aead_request_size(void) { return sizeof(struct aead_request); }
void mml_sg_one(struct scatterlist *sg, void *buf, unsigned int len) { sg_init_one(sg, buf, len); }

/* Contexts, per-CPU places, deferral. */
void mml_bh_disable(void) { local_bh_disable(); }
void mml_bh_enable(void) { local_bh_enable(); }
unsigned int mml_cpu(void) { return smp_processor_id(); }
unsigned int mml_cpus(void) { return nr_cpu_ids; }
static enum hrtimer_restart mml_timer_fire(struct hrtimer *timer) { mml_rs_timer(timer); return HRTIMER_NORESTART; }
void mml_timer_setup(struct hrtimer *timer) { hrtimer_setup(timer, mml_timer_fire, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_SOFT); }
void mml_timer_start(struct hrtimer *timer, u64 ns) { hrtimer_start(timer, ns_to_ktime(ns), HRTIMER_MODE_ABS_SOFT); }
static enum hrtimer_restart mml_alarm_fire(struct hrtimer *timer) { mml_rs_alarm_timer(timer); return HRTIMER_NORESTART; }
void mml_alarm_timer_setup(struct hrtimer *timer) { hrtimer_setup(timer, mml_alarm_fire, CLOCK_BOOTTIME, HRTIMER_MODE_ABS_SOFT); }
void mml_alarm_work_setup(struct work_struct *work) { INIT_WORK(work, mml_rs_alarm_work); }
bool mml_work_queue(struct workqueue_struct *wq, struct work_struct *work) { return queue_work(wq, work); }
u64 mml_now_ns(void) { return ktime_get_ns(); }
u64 mml_boottime_ns(void) { return ktime_get_boottime_ns(); }
u64 mml_jiffies64(void) { return get_jiffies_64(); }
u64 mml_hz(void) { return HZ; }
u64 mml_seconds(void) { return ktime_get_real_seconds(); }
u32 mml_random32(void) { return get_random_u32(); }
void mml_rcu_work_init(struct rcu_work *rw) { INIT_RCU_WORK(rw, mml_rs_deferred); }
struct rcu_work *mml_to_rcu_work(struct work_struct *work) { return to_rcu_work(work); }
struct workqueue_struct *mml_workqueue_new(void) { return alloc_workqueue("mml", WQ_MEM_RECLAIM | WQ_UNBOUND, 0); }
void mml_memzero(void *p, size_t len) { memzero_explicit(p, len); }
bool mml_module_get(void) { return try_module_get(THIS_MODULE); }
void mml_module_put(void) { module_put(THIS_MODULE); }

MODULE_ALIAS_GENL_FAMILY("mml");
MODULE_ALIAS_RTNL_LINK("mml");
