// SPDX-License-Identifier: GPL-2.0-only OR MIT
// The second implementation of XFRM's messages: the kernel's own header lays them out. Prints a name and octets a line.
//   cc -o /tmp/xfrm keyd/tests/vectors/xfrm.c && /tmp/xfrm > keyd/tests/vectors/xfrm.txt
// The octets are a little-endian, 64-bit machine's.
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <linux/xfrm.h>
#include <stdio.h>
#include <string.h>

static struct {
	struct nlmsghdr head;
	char rest[2048];
} message;

static void *begin(int type, size_t body)
{
	memset(&message, 0, sizeof(message));
	message.head.nlmsg_type = type;
	message.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	message.head.nlmsg_seq = 7;
	message.head.nlmsg_len = NLMSG_LENGTH(body);
	return NLMSG_DATA(&message.head);
}

static void *attribute(int type, size_t length)
{
	struct nlattr *attr = (void *)((char *)&message + NLMSG_ALIGN(message.head.nlmsg_len));

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + length;
	message.head.nlmsg_len = NLMSG_ALIGN(message.head.nlmsg_len) + NLA_ALIGN(attr->nla_len);
	return (char *)attr + NLA_HDRLEN;
}

static void say(const char *name)
{
	printf("%s ", name);
	for (unsigned int i = 0; i < message.head.nlmsg_len; i++)
		printf("%02x", ((unsigned char *)&message)[i]);
	printf("\n");
}

static void address(xfrm_address_t *to, const char *text)
{
	inet_pton(AF_INET, text, to);
}

static void infinite(struct xfrm_lifetime_cfg *lft)
{
	lft->soft_byte_limit = lft->hard_byte_limit = XFRM_INF;
	lft->soft_packet_limit = lft->hard_packet_limit = XFRM_INF;
}

static void sa_info(struct xfrm_usersa_info *info, __u32 spi)
{
	address(&info->saddr, "198.51.100.1");
	address(&info->id.daddr, "192.0.2.2");
	info->id.spi = htonl(spi);
	info->id.proto = IPPROTO_ESP;
	info->family = AF_INET;
	info->mode = XFRM_MODE_TUNNEL;
	infinite(&info->lft);
}

static void new_sa(const char *name, int type, int inbound)
{
	struct xfrm_usersa_info *info = begin(type, sizeof(*info));
	struct xfrm_algo_aead *aead;
	struct xfrm_replay_state_esn *esn;
	struct xfrm_encap_tmpl *encap;

	sa_info(info, 0xc0ffee01);
	info->lft.soft_byte_limit = 1000;
	info->lft.soft_add_expires_seconds = 3000;
	info->lft.hard_add_expires_seconds = 3600;
	info->reqid = 0x4d4c0003;
	info->flags = XFRM_STATE_AF_UNSPEC | XFRM_STATE_ESN;
	aead = attribute(XFRMA_ALG_AEAD, sizeof(*aead) + 20);
	strcpy(aead->alg_name, "rfc4106(gcm(aes))");
	aead->alg_key_len = 160;
	aead->alg_icv_len = 128;
	for (int i = 0; i < 20; i++)
		aead->alg_key[i] = i;
	esn = attribute(XFRMA_REPLAY_ESN_VAL, sizeof(*esn) + 4 * 32);
	esn->bmp_len = 32;
	esn->replay_window = inbound ? 1024 : 1;
	encap = attribute(XFRMA_ENCAP, sizeof(*encap));
	encap->encap_type = UDP_ENCAP_ESPINUDP;
	encap->encap_sport = htons(4500);
	encap->encap_dport = htons(61000);
	say(name);
}

static void selector(struct xfrm_selector *sel)
{
	address(&sel->saddr, "10.1.0.0");
	address(&sel->daddr, "203.0.113.7");
	sel->prefixlen_s = 16;
	sel->prefixlen_d = 32;
	sel->family = AF_INET;
	sel->proto = 6;
}

static void policy_info(struct xfrm_userpolicy_info *info)
{
	selector(&info->sel);
	infinite(&info->lft);
	info->priority = 1000;
	info->dir = XFRM_POLICY_OUT;
	info->action = XFRM_POLICY_ALLOW;
}

static void template(struct xfrm_user_tmpl *tmpl)
{
	address(&tmpl->saddr, "198.51.100.1");
	address(&tmpl->id.daddr, "192.0.2.2");
	tmpl->id.proto = IPPROTO_ESP;
	tmpl->family = AF_INET;
	tmpl->reqid = 0x4d4c0003;
	tmpl->mode = XFRM_MODE_TUNNEL;
	tmpl->aalgos = tmpl->ealgos = tmpl->calgos = ~0;
}

int main(void)
{
	struct xfrm_userspi_info *spi = begin(XFRM_MSG_ALLOCSPI, sizeof(*spi));
	struct xfrm_usersa_id *id;
	struct xfrm_userpolicy_info *policy;
	struct xfrm_userpolicy_id *policy_id;
	struct xfrm_user_acquire *acquire;
	struct xfrm_user_expire *expire;
	struct xfrm_replay_state_esn *esn;

	sa_info(&spi->info, 0);
	spi->min = spi->max = 0xc0ffee01;
	say("allocspi");

	new_sa("newsa-out", XFRM_MSG_NEWSA, 0);
	new_sa("updsa-in", XFRM_MSG_UPDSA, 1);

	id = begin(XFRM_MSG_DELSA, sizeof(*id));
	address(&id->daddr, "192.0.2.2");
	id->spi = htonl(0xc0ffee01);
	id->family = AF_INET;
	id->proto = IPPROTO_ESP;
	say("delsa");
	message.head.nlmsg_type = XFRM_MSG_GETSA;
	say("getsa");

	policy = begin(XFRM_MSG_UPDPOLICY, sizeof(*policy));
	policy_info(policy);
	template(attribute(XFRMA_TMPL, sizeof(struct xfrm_user_tmpl)));
	say("updpolicy-protect");

	policy = begin(XFRM_MSG_UPDPOLICY, sizeof(*policy));
	policy_info(policy);
	policy->dir = XFRM_POLICY_IN;
	policy->priority = 0;
	policy->sel.proto = IPPROTO_UDP;
	policy->sel.dport = htons(500);
	policy->sel.dport_mask = 0xffff;
	say("updpolicy-bypass");

	policy_id = begin(XFRM_MSG_DELPOLICY, sizeof(*policy_id));
	selector(&policy_id->sel);
	policy_id->dir = XFRM_POLICY_FWD;
	say("delpolicy");

	acquire = begin(XFRM_MSG_ACQUIRE, sizeof(*acquire));
	address(&acquire->saddr, "198.51.100.1");
	address(&acquire->id.daddr, "192.0.2.2");
	acquire->id.proto = IPPROTO_ESP;
	acquire->sel.family = AF_INET;
	policy_info(&acquire->policy);
	say("acquire");

	expire = begin(XFRM_MSG_EXPIRE, sizeof(*expire));
	sa_info(&expire->state, 0xc0ffee01);
	expire->hard = 1;
	say("expire-hard");

	sa_info(begin(XFRM_MSG_NEWSA, sizeof(struct xfrm_usersa_info)), 0xc0ffee01);
	esn = attribute(XFRMA_REPLAY_ESN_VAL, sizeof(*esn) + 4 * 32);
	esn->bmp_len = 32;
	esn->oseq = 5;
	esn->oseq_hi = 1;
	esn->seq = 7;
	esn->seq_hi = 2;
	say("newsa-told");
	return 0;
}
