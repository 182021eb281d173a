//! Operations to bytes: one atomic batch of nf_tables messages. Pure.

use super::consts::{self as c, msg};
use super::delta::Operation;
use super::state::Shape;
use crate::kernel::wire::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, Open, Wire};
use crate::plan::nft::{
    Base, COMMENT_MAX, Chain, ChainType, Datum, Family, Field, Holds, Hook, Key, Kind, Name, Op, Policy,
    Reject, Rule, Set, Stmt, Table, Value, Verdict,
};

/// A nest of elements is closed at this size: its length field has 16 bits, one element takes at most ~250 bytes.
const ELEMENTS_BYTES_MAX: usize = 60_000;

/// A batch ready to be sent.
pub(super) struct Batch {
    pub(super) wire: Wire,
    /// For each message, in order of sequence numbers from `first_seq`, the operation that it belongs to.
    pub(super) origin: Vec<usize>,
    pub(super) first_seq: u32,
}

impl Batch {
    /// Index of the operation to which a message belongs.
    pub(super) fn operation(&self, seq: u32) -> Option<usize> {
        let at = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.origin.get(at).copied()
    }
}

struct Encoder<'a> {
    table: &'a Table,
    batch: Batch,
    seq: u32,
    current: usize,
    last_flags_at: usize,
}

/// Encodes a batch. The batch begins with message `seq`, its operations follow from `seq + 1`; the kernel takes it
/// only while the ruleset's generation is `generation`. The last operation asks for an acknowledgement.
pub(super) fn batch(table: &Table, ops: &[Operation], seq: u32, generation: u32) -> Batch {
    let mut wire = Wire::default();
    let res_id = c::NFNL_SUBSYS_NFTABLES.to_be_bytes();
    let begin = wire.message(
        c::NFNL_MSG_BATCH_BEGIN,
        NLM_F_REQUEST,
        seq,
        &[0, 0, res_id[0], res_id[1]],
    );
    wire.attr_be32(c::NFNL_BATCH_GENID, generation);
    wire.end_message(begin);
    let batch = Batch {
        wire,
        origin: Vec::with_capacity(ops.len()),
        first_seq: seq + 1,
    };
    let mut e = Encoder {
        table,
        batch,
        seq,
        current: 0,
        last_flags_at: 0,
    };
    for (i, op) in ops.iter().enumerate() {
        e.current = i;
        e.operation(op);
    }
    let last = e.last_flags_at;
    e.batch.wire.patch_u16(last, |flags| flags | NLM_F_ACK);
    let end = e.seq + 1;
    let open = e.batch.wire.message(
        c::NFNL_MSG_BATCH_END,
        NLM_F_REQUEST,
        end,
        &[0, 0, res_id[0], res_id[1]],
    );
    e.batch.wire.end_message(open);
    e.batch
}

pub(super) fn family(table: &Table) -> u8 {
    match table.family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Ip6 => 10,
    }
}

impl Encoder<'_> {
    fn message(&mut self, kind: u16, flags: u16) -> Open {
        self.seq += 1;
        self.batch.origin.push(self.current);
        self.last_flags_at = self.batch.wire.len() + 6;
        self.batch.wire.message(
            kind,
            flags | NLM_F_REQUEST,
            self.seq,
            &[family(self.table), 0, 0, 0],
        )
    }

    fn simple(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Wire, &str)) {
        let open = self.message(kind, flags);
        fill(&mut self.batch.wire, self.table.name.as_str());
        self.batch.wire.end_message(open);
    }

    fn operation(&mut self, op: &Operation) {
        match op {
            Operation::DelTable => self.simple(msg::DELTABLE, 0, |w, t| w.attr_str(c::NFTA_TABLE_NAME, t)),
            Operation::NewTable => self.simple(msg::NEWTABLE, NLM_F_CREATE, |w, t| {
                w.attr_str(c::NFTA_TABLE_NAME, t)
            }),
            Operation::Flush(chain) => self.simple(msg::DELRULE, 0, |w, t| {
                w.attr_str(c::NFTA_RULE_TABLE, t);
                w.attr_str(c::NFTA_RULE_CHAIN, chain);
            }),
            Operation::DelChain(chain) => self.simple(msg::DELCHAIN, 0, |w, t| {
                w.attr_str(c::NFTA_CHAIN_TABLE, t);
                w.attr_str(c::NFTA_CHAIN_NAME, chain);
            }),
            Operation::NewChain(name, chain) => {
                self.simple(msg::NEWCHAIN, NLM_F_CREATE, |w, t| new_chain(w, t, name, chain));
            }
            Operation::DelSet(set) => self.simple(msg::DELSET, 0, |w, t| {
                w.attr_str(c::NFTA_SET_TABLE, t);
                w.attr_str(c::NFTA_SET_NAME, set);
            }),
            Operation::NewSet(name, set) => {
                let id = self.seq + 1; // unique within the batch
                self.simple(msg::NEWSET, NLM_F_CREATE, |w, t| new_set(w, t, name, set, id));
            }
            Operation::AddElements(set, shape, all) => {
                self.elements(msg::NEWSETELEM, NLM_F_CREATE, set.as_str(), shape, all);
            }
            Operation::DelElements(set, shape, all) => self.elements(msg::DELSETELEM, 0, set, shape, all),
            Operation::NewRule(chain, index, holder) => {
                if let Some(rule) = holder.rules.get(*index) {
                    self.simple(msg::NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |w, t| {
                        new_rule(w, t, chain, rule)
                    });
                }
            }
        }
    }

    /// As many messages as the elements need.
    fn elements(&mut self, kind: u16, flags: u16, set: &str, shape: &Shape, all: &[(Key, Datum)]) {
        let mut all = all.iter().peekable();
        while all.peek().is_some() {
            let open = self.message(kind, flags);
            let w = &mut self.batch.wire;
            w.attr_str(c::NFTA_SET_ELEM_LIST_TABLE, self.table.name.as_str());
            w.attr_str(c::NFTA_SET_ELEM_LIST_SET, set);
            let list = w.nest(c::NFTA_SET_ELEM_LIST_ELEMENTS);
            while w.since(&list) < ELEMENTS_BYTES_MAX {
                let Some((key, datum)) = all.next() else { break };
                element(w, shape, key, datum);
            }
            w.end_nest(list);
            w.end_message(open);
        }
    }
}

fn new_chain(w: &mut Wire, table: &str, name: &Name, chain: &Chain) {
    w.attr_str(c::NFTA_CHAIN_TABLE, table);
    w.attr_str(c::NFTA_CHAIN_NAME, name.as_str());
    let Some(Base {
        kind,
        hook,
        priority,
        policy,
    }) = chain.base
    else {
        return;
    };
    w.nested(c::NFTA_CHAIN_HOOK, |w| {
        w.attr_be32(c::NFTA_HOOK_HOOKNUM, hook_number(hook));
        w.attr(c::NFTA_HOOK_PRIORITY, &priority.to_be_bytes());
    });
    w.attr_be32(c::NFTA_CHAIN_POLICY, u32::from(policy == Policy::Accept));
    w.attr_str(
        c::NFTA_CHAIN_TYPE,
        if kind == ChainType::Nat { "nat" } else { "filter" },
    );
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn new_set(w: &mut Wire, table: &str, name: &Name, set: &Set, id: u32) {
    let shape = Shape::of(set);
    w.attr_str(c::NFTA_SET_TABLE, table);
    w.attr_str(c::NFTA_SET_NAME, name.as_str());
    w.attr_be32(c::NFTA_SET_FLAGS, shape.flags);
    w.attr_be32(c::NFTA_SET_KEY_TYPE, shape.key_type);
    w.attr_be32(c::NFTA_SET_KEY_LEN, shape.key_len);
    if shape.flags & c::NFT_SET_MAP != 0 {
        w.attr_be32(c::NFTA_SET_DATA_TYPE, shape.data_type);
        if shape.data_len > 0 {
            w.attr_be32(c::NFTA_SET_DATA_LEN, shape.data_len);
        }
    }
    w.attr_be32(c::NFTA_SET_ID, id);
    let userdata = byte_orders(set);
    if !userdata.is_empty() {
        w.attr(c::NFTA_SET_USERDATA, &userdata);
    }
    if shape.flags & c::NFT_SET_CONCAT != 0 {
        w.nested(c::NFTA_SET_DESC, |w| {
            w.nested(c::NFTA_SET_DESC_CONCAT, |w| {
                for kind in &set.key {
                    let len = u32::try_from(kind.len()).unwrap_or(u32::MAX);
                    w.nested(c::NFTA_LIST_ELEM, |w| w.attr_be32(c::NFTA_SET_FIELD_LEN, len));
                }
            });
        });
    }
}

/// Tells `nft` which values are in host order; without it listings show names and marks wrongly.
fn byte_orders(set: &Set) -> Vec<u8> {
    let host = |kind: &Kind| matches!(kind, Kind::IfName | Kind::IfIndex | Kind::Mark | Kind::CtState);
    let mut userdata = Vec::new();
    let mut tell = |what| {
        userdata.extend_from_slice(&[what, 4]);
        userdata.extend_from_slice(&c::BYTEORDER_HOST.to_ne_bytes());
    };
    if let [only] = set.key.as_slice()
        && host(only)
    {
        tell(c::UDATA_SET_KEYBYTEORDER);
    }
    if let Holds::Values(kind) = &set.holds
        && host(kind)
    {
        tell(c::UDATA_SET_DATABYTEORDER);
    }
    userdata
}

/// One element; a range in a tree is two, its start and, unless it reaches the end of the space, what follows it.
fn element(w: &mut Wire, shape: &Shape, key: &Key, datum: &Datum) {
    w.nested(c::NFTA_LIST_ELEM, |w| {
        w.nested(c::NFTA_SET_ELEM_KEY, |w| w.attr(c::NFTA_DATA_VALUE, key.from()));
        if shape.flags & c::NFT_SET_CONCAT != 0 {
            w.nested(c::NFTA_SET_ELEM_KEY_END, |w| w.attr(c::NFTA_DATA_VALUE, key.to()));
        }
        match datum {
            Datum::None => {}
            Datum::Verdict(v) => w.nested(c::NFTA_SET_ELEM_DATA, |w| verdict(w, v)),
            Datum::Value(bytes) => w.nested(c::NFTA_SET_ELEM_DATA, |w| w.attr(c::NFTA_DATA_VALUE, bytes)),
        }
    });
    if shape.is_tree()
        && let Some(after) = key.after()
    {
        w.nested(c::NFTA_LIST_ELEM, |w| {
            w.nested(c::NFTA_SET_ELEM_KEY, |w| w.attr(c::NFTA_DATA_VALUE, &after));
            w.attr_be32(c::NFTA_SET_ELEM_FLAGS, c::NFT_SET_ELEM_INTERVAL_END);
        });
    }
}

fn verdict(w: &mut Wire, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (c::NF_ACCEPT, None),
        Verdict::Drop => (c::NF_DROP, None),
        Verdict::Return => (c::NFT_RETURN, None),
        Verdict::Continue => (c::NFT_CONTINUE, None),
        Verdict::Jump(chain) => (c::NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (c::NFT_GOTO, Some(chain)),
    };
    w.nested(c::NFTA_DATA_VERDICT, |w| {
        w.attr(c::NFTA_VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            w.attr_str(c::NFTA_VERDICT_CHAIN, chain.as_str());
        }
    });
}

fn new_rule(w: &mut Wire, table: &str, chain: &Name, rule: &Rule) {
    w.attr_str(c::NFTA_RULE_TABLE, table);
    w.attr_str(c::NFTA_RULE_CHAIN, chain.as_str());
    expressions(w, rule);
    let mut userdata = Vec::new();
    if let Some(text) = comment(rule) {
        let len = u8::try_from(text.len() + 1).expect("a comment is cut to 127 bytes");
        userdata.extend_from_slice(&[c::UDATA_RULE_COMMENT, len]);
        userdata.extend_from_slice(text.as_bytes());
        userdata.push(0);
    }
    userdata.extend_from_slice(&[c::UDATA_RULE_HASH, 8]);
    userdata.extend_from_slice(&rule_hash(rule).to_be_bytes());
    w.attr(c::NFTA_RULE_USERDATA, &userdata);
}

/// The comment as far as it fits, cut at a character.
fn comment(rule: &Rule) -> Option<&str> {
    rule.comment.as_deref().map(|text| {
        text.get(..text.floor_char_boundary(COMMENT_MAX))
            .unwrap_or_default()
    })
}

/// By what a rule is known again: FNV-1a over its encoded expressions and comment.
#[must_use]
pub fn rule_hash(rule: &Rule) -> u64 {
    let mut w = Wire::default();
    expressions(&mut w, rule);
    let fold = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = w.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fold);
    comment(rule)
        .unwrap_or_default()
        .as_bytes()
        .iter()
        .fold(hash, fold)
}

fn expressions(w: &mut Wire, rule: &Rule) {
    w.nested(c::NFTA_RULE_EXPRESSIONS, |w| {
        rule.stmts.iter().for_each(|s| statement(w, s))
    });
}

fn expr(w: &mut Wire, name: &str, fill: impl FnOnce(&mut Wire)) {
    w.nested(c::NFTA_LIST_ELEM, |w| {
        w.attr_str(c::NFTA_EXPR_NAME, name);
        w.nested(c::NFTA_EXPR_DATA, fill);
    });
}

fn data(w: &mut Wire, kind: u16, bytes: &[u8]) {
    w.nested(kind, |w| w.attr(c::NFTA_DATA_VALUE, bytes));
}

/// The register that every match uses; concatenations go on from here.
const REG: u32 = c::NFT_REG32_00;

fn statement(w: &mut Wire, stmt: &Stmt) {
    match stmt {
        Stmt::Cmp(field, op, value) => {
            load(w, *field, REG);
            compare(w, *op, &value.bytes());
        }
        Stmt::NamePrefix(field, op, name) => {
            load(w, *field, REG);
            compare(w, *op, name.as_str().as_bytes());
        }
        Stmt::Net(field, op, net) => network(w, *field, *op, net),
        Stmt::Range(field, op, from, to) => range(w, *field, *op, from, to),
        Stmt::Bits {
            field,
            mask,
            op,
            value,
        } => {
            load(w, *field, REG);
            bitwise(w, &mask.to_ne_bytes(), &[0; 4]);
            compare(w, *op, &value.to_ne_bytes());
        }
        Stmt::In(fields, op, set) => {
            concat(w, fields);
            expr(w, "lookup", |w| {
                w.attr_str(c::NFTA_LOOKUP_SET, set.as_str());
                w.attr_be32(c::NFTA_LOOKUP_SREG, REG);
                if *op == Op::Ne {
                    w.attr_be32(c::NFTA_LOOKUP_FLAGS, c::NFT_LOOKUP_F_INV);
                }
            });
        }
        Stmt::Vmap(fields, map) => {
            concat(w, fields);
            expr(w, "lookup", |w| {
                w.attr_str(c::NFTA_LOOKUP_SET, map.as_str());
                w.attr_be32(c::NFTA_LOOKUP_SREG, REG);
                w.attr_be32(c::NFTA_LOOKUP_DREG, c::NFT_REG_VERDICT);
            });
        }
        Stmt::Verdict(v) => expr(w, "immediate", |w| {
            w.attr_be32(c::NFTA_IMMEDIATE_DREG, c::NFT_REG_VERDICT);
            w.nested(c::NFTA_IMMEDIATE_DATA, |w| verdict(w, v));
        }),
        other => action(w, other),
    }
}

/// Statements that do rather than match.
fn action(w: &mut Wire, stmt: &Stmt) {
    match stmt {
        Stmt::Counter => expr(w, "counter", |_| {}),
        Stmt::NoTrack => expr(w, "notrack", |_| {}),
        Stmt::Log { prefix, level } => expr(w, "log", |w| {
            let prefix = prefix
                .get(..prefix.floor_char_boundary(COMMENT_MAX))
                .unwrap_or_default();
            w.attr_str(c::NFTA_LOG_PREFIX, prefix);
            w.attr_be32(c::NFTA_LOG_LEVEL, *level as u32);
        }),
        Stmt::Limit(rate) => expr(w, "limit", |w| {
            w.attr_be64(c::NFTA_LIMIT_RATE, u64::from(rate.packets));
            w.attr_be64(c::NFTA_LIMIT_UNIT, rate.per as u64);
            w.attr_be32(c::NFTA_LIMIT_BURST, rate.burst);
            w.attr_be32(c::NFTA_LIMIT_TYPE, 0);
            w.attr_be32(c::NFTA_LIMIT_FLAGS, 0);
        }),
        Stmt::Reject(reject) => expr(w, "reject", |w| {
            let (kind, code) = match reject {
                Reject::TcpReset => (c::NFT_REJECT_TCP_RST, None),
                Reject::PortUnreachable => (
                    c::NFT_REJECT_ICMPX_UNREACH,
                    Some(c::NFT_REJECT_ICMPX_PORT_UNREACH),
                ),
                Reject::AdminProhibited => (
                    c::NFT_REJECT_ICMPX_UNREACH,
                    Some(c::NFT_REJECT_ICMPX_ADMIN_PROHIBITED),
                ),
            };
            w.attr_be32(c::NFTA_REJECT_TYPE, kind);
            if let Some(code) = code {
                w.attr_u8(c::NFTA_REJECT_ICMP_CODE, code);
            }
        }),
        Stmt::SetMark { mask, value } => {
            if *mask == u32::MAX {
                expr(w, "immediate", |w| {
                    w.attr_be32(c::NFTA_IMMEDIATE_DREG, REG);
                    data(w, c::NFTA_IMMEDIATE_DATA, &value.to_ne_bytes());
                });
            } else {
                load(w, Field::Mark, REG);
                bitwise(w, &(!mask).to_ne_bytes(), &(value & mask).to_ne_bytes());
            }
            expr(w, "meta", |w| {
                w.attr_be32(c::NFTA_KEYED_KEY, c::NFT_META_MARK);
                w.attr_be32(c::NFTA_META_SREG, REG);
            });
        }
        Stmt::Masquerade { fully_random } => expr(w, "masq", |w| {
            if *fully_random {
                w.attr_be32(c::NFTA_MASQ_FLAGS, c::NF_NAT_RANGE_PROTO_RANDOM_FULLY);
            }
        }),
        _ => debug_assert!(false, "a match is encoded by `statement`"),
    }
}

fn compare(w: &mut Wire, op: Op, bytes: &[u8]) {
    expr(w, "cmp", |w| {
        w.attr_be32(c::NFTA_CMP_SREG, REG);
        w.attr_be32(c::NFTA_CMP_OP, u32::from(op == Op::Ne));
        data(w, c::NFTA_CMP_DATA, bytes);
    });
}

fn bitwise(w: &mut Wire, mask: &[u8], xor: &[u8]) {
    expr(w, "bitwise", |w| {
        w.attr_be32(c::NFTA_BITWISE_SREG, REG);
        w.attr_be32(c::NFTA_BITWISE_DREG, REG);
        w.attr_be32(c::NFTA_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
        data(w, c::NFTA_BITWISE_MASK, mask);
        data(w, c::NFTA_BITWISE_XOR, xor);
    });
}

/// A network: the address under its mask.
fn network(w: &mut Wire, field: Field, op: Op, net: &ipnet::IpNet) {
    let net = net.trunc();
    let octets = |ip: std::net::IpAddr| Value::from(ip).bytes();
    let (address, mask) = (octets(net.network()), octets(net.netmask()));
    load(w, field, REG);
    if net.prefix_len() < net.max_prefix_len() {
        bitwise(w, &mask, &vec![0; mask.len()]);
    }
    compare(w, op, &address);
}

/// The kernel's `range` can only tell "inside" from "outside" for whole values in network order, which is what is loaded.
fn range(w: &mut Wire, field: Field, op: Op, from: &Value, to: &Value) {
    load(w, field, REG);
    expr(w, "range", |w| {
        w.attr_be32(c::NFTA_RANGE_SREG, REG);
        w.attr_be32(c::NFTA_RANGE_OP, u32::from(op == Op::Ne));
        data(w, c::NFTA_RANGE_FROM_DATA, &from.bytes());
        data(w, c::NFTA_RANGE_TO_DATA, &to.bytes());
    });
}

fn concat(w: &mut Wire, fields: &[Field]) {
    let mut reg = REG;
    for field in fields {
        load(w, *field, reg);
        reg += u32::try_from(field.kind().len().div_ceil(4)).unwrap_or(u32::MAX);
    }
}

/// Loads a field of the packet into a register.
fn load(w: &mut Wire, field: Field, reg: u32) {
    let meta = |w: &mut Wire, key| keyed(w, "meta", key, reg);
    let network = c::NFT_PAYLOAD_NETWORK_HEADER;
    let transport = c::NFT_PAYLOAD_TRANSPORT_HEADER;
    let payload = |w: &mut Wire, base, offset| {
        let len = u32::try_from(field.kind().len()).unwrap_or(u32::MAX);
        expr(w, "payload", |w| {
            w.attr_be32(c::NFTA_PAYLOAD_DREG, reg);
            w.attr_be32(c::NFTA_PAYLOAD_BASE, base);
            w.attr_be32(c::NFTA_PAYLOAD_OFFSET, offset);
            w.attr_be32(c::NFTA_PAYLOAD_LEN, len);
        });
    };
    match field {
        Field::IifName => meta(w, c::NFT_META_IIFNAME),
        Field::OifName => meta(w, c::NFT_META_OIFNAME),
        Field::Oif => meta(w, c::NFT_META_OIF),
        Field::NfProto => meta(w, c::NFT_META_NFPROTO),
        Field::L4Proto => meta(w, c::NFT_META_L4PROTO),
        Field::Mark => meta(w, c::NFT_META_MARK),
        Field::CtState => keyed(w, "ct", c::NFT_CT_STATE, reg),
        Field::CtMark => keyed(w, "ct", c::NFT_CT_MARK, reg),
        Field::Ip4Saddr => payload(w, network, 12),
        Field::Ip4Daddr => payload(w, network, 16),
        Field::Ip6Saddr => payload(w, network, 8),
        Field::Ip6Daddr => payload(w, network, 24),
        Field::ThSport | Field::IcmpType | Field::Icmpv6Type => payload(w, transport, 0),
        Field::IcmpCode | Field::Icmpv6Code => payload(w, transport, 1),
        Field::ThDport => payload(w, transport, 2),
    }
}

fn keyed(w: &mut Wire, what: &str, key: u32, reg: u32) {
    expr(w, what, |w| {
        w.attr_be32(c::NFTA_KEYED_DREG, reg);
        w.attr_be32(c::NFTA_KEYED_KEY, key);
    });
}
