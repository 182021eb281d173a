//! Reading our table back from the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::consts::{self as c, msg};
use super::encode::family;
use super::state::{ChainState, SetState, Shape, State};
use crate::kernel::netlink::{NetlinkError, Socket};
use crate::kernel::wire::{self, Message, Wire};
use crate::plan::nft::{Base, ChainType, Datum, Hook, Key, Name, Policy, Table, Verdict};

/// Bytes of `struct nfgenmsg`.
const GENMSG_LEN: usize = 4;
/// Repetitions when other changes come between the parts of a dump.
const RETRIES: usize = 8;

/// The table as it is, with the generation of the ruleset at which this was so. `None`: there is no such table.
pub(super) fn table(socket: &mut Socket, table: &Table) -> Result<(u32, Option<State>), NetlinkError> {
    for _ in 0..RETRIES {
        let before = generation(socket)?;
        let state = match read(socket, table) {
            // The table or a set went away between two parts.
            Err(e) if e.errno() == Some(libc::ENOENT) => None,
            other => other?,
        };
        if generation(socket)? == before {
            return Ok((before, state));
        }
    }
    Err(NetlinkError::Disturbed)
}

/// The generation of this namespace's rulesets: each commit, of whomever, adds one.
pub(super) fn generation(socket: &mut Socket) -> Result<u32, NetlinkError> {
    let found: Option<u32> = socket.query(
        msg::GETGEN,
        &[0; 4],
        |_| {},
        |out: &mut Option<u32>, m| {
            *out = attr(&m, c::NFTA_GEN_ID).and_then(wire::be32).or(*out);
        },
    )?;
    found.ok_or_else(|| std::io::Error::other("nf_tables did not tell its generation").into())
}

fn read(socket: &mut Socket, table: &Table) -> Result<Option<State>, NetlinkError> {
    let name = table.name.as_str();
    let body = [family(table), 0, 0, 0];
    match socket.query(
        msg::GETTABLE,
        &body,
        |w| w.attr_str(c::NFTA_TABLE_NAME, name),
        |_: &mut (), _| {},
    ) {
        Ok(()) => {}
        Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(e),
    }
    let mut state = State {
        chains: chains(socket, &body, name)?,
        sets: BTreeMap::new(),
    };
    rules(socket, &body, name, &mut state.chains)?;
    for (set, shape) in sets(socket, &body, name)? {
        let elements = Arc::new(elements(socket, &body, name, &set, &shape)?);
        state.sets.insert(set, SetState { shape, elements });
    }
    Ok(Some(state))
}

fn attr<'a>(message: &Message<'a>, kind: u16) -> Option<&'a [u8]> {
    wire::find(message.payload.get(GENMSG_LEN..).unwrap_or_default(), kind)
}

fn is_table(message: &Message<'_>, kind: u16, name: &str) -> bool {
    attr(message, kind).map(wire::text).as_deref() == Some(name)
}

fn chains(
    socket: &mut Socket,
    body: &[u8],
    name: &str,
) -> Result<BTreeMap<String, ChainState>, NetlinkError> {
    socket.dump(
        msg::GETCHAIN,
        body,
        |_| {},
        |out: &mut BTreeMap<_, _>, m| {
            if is_table(&m, c::NFTA_CHAIN_TABLE, name)
                && let Some(chain) = attr(&m, c::NFTA_CHAIN_NAME).map(wire::text)
            {
                out.insert(
                    chain,
                    ChainState {
                        base: base(&m),
                        rules: Vec::new(),
                        applied: None,
                    },
                );
            }
        },
    )
}

/// The hook of a chain. A hook or type that we never use reads as none, which no base chain of ours equals.
fn base(message: &Message<'_>) -> Option<Base> {
    let hook = attr(message, c::NFTA_CHAIN_HOOK)?;
    let number = wire::find(hook, c::NFTA_HOOK_HOOKNUM).and_then(wire::be32)?;
    let priority = wire::find(hook, c::NFTA_HOOK_PRIORITY)
        .and_then(wire::be32)?
        .cast_signed();
    let hook = match number {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        2 => Hook::Forward,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => return None,
    };
    let kind = match attr(message, c::NFTA_CHAIN_TYPE).map(wire::text)?.as_str() {
        "filter" => ChainType::Filter,
        "nat" => ChainType::Nat,
        _ => return None,
    };
    let accept = attr(message, c::NFTA_CHAIN_POLICY).and_then(wire::be32) == Some(1);
    Some(Base {
        kind,
        hook,
        priority,
        policy: if accept { Policy::Accept } else { Policy::Drop },
    })
}

fn rules(
    socket: &mut Socket,
    body: &[u8],
    name: &str,
    chains: &mut BTreeMap<String, ChainState>,
) -> Result<(), NetlinkError> {
    let filter = |w: &mut Wire| w.attr_str(c::NFTA_RULE_TABLE, name);
    let all: Vec<(String, Option<u64>)> =
        socket.dump(msg::GETRULE, body, filter, |out: &mut Vec<_>, m| {
            if is_table(&m, c::NFTA_RULE_TABLE, name)
                && let Some(chain) = attr(&m, c::NFTA_RULE_CHAIN).map(wire::text)
            {
                out.push((chain, attr(&m, c::NFTA_RULE_USERDATA).and_then(userdata_hash)));
            }
        })?;
    for (chain, hash) in all {
        if let Some(held) = chains.get_mut(&chain) {
            held.rules.push(hash);
        }
    }
    Ok(())
}

fn userdata_hash(mut bytes: &[u8]) -> Option<u64> {
    loop {
        let (kind, len) = (*bytes.first()?, usize::from(*bytes.get(1)?));
        let value = bytes.get(2..2 + len)?;
        if kind == c::UDATA_RULE_HASH {
            return value.try_into().ok().map(u64::from_be_bytes);
        }
        bytes = bytes.get(2 + len..)?;
    }
}

fn sets(socket: &mut Socket, body: &[u8], name: &str) -> Result<Vec<(String, Shape)>, NetlinkError> {
    let filter = |w: &mut Wire| w.attr_str(c::NFTA_SET_TABLE, name);
    socket.dump(msg::GETSET, body, filter, |out: &mut Vec<_>, m| {
        let number = |kind| attr(&m, kind).and_then(wire::be32).unwrap_or_default();
        if is_table(&m, c::NFTA_SET_TABLE, name)
            && let Some(set) = attr(&m, c::NFTA_SET_NAME).map(wire::text)
        {
            let data_type = number(c::NFTA_SET_DATA_TYPE);
            let verdicts = data_type == c::NFT_DATA_VERDICT;
            let shape = Shape {
                flags: number(c::NFTA_SET_FLAGS),
                key_type: number(c::NFTA_SET_KEY_TYPE),
                key_len: number(c::NFTA_SET_KEY_LEN),
                data_type,
                data_len: if verdicts { 0 } else { number(c::NFTA_SET_DATA_LEN) },
            };
            out.push((set, shape));
        }
    })
}

fn elements(
    socket: &mut Socket,
    body: &[u8],
    name: &str,
    set: &str,
    shape: &Shape,
) -> Result<BTreeMap<Key, Datum>, NetlinkError> {
    let filter = |w: &mut Wire| {
        w.attr_str(c::NFTA_SET_ELEM_LIST_TABLE, name);
        w.attr_str(c::NFTA_SET_ELEM_LIST_SET, set);
    };
    let raw: Vec<Element> = socket.dump(msg::GETSETELEM, body, filter, |out: &mut Vec<_>, m| {
        let list = attr(&m, c::NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
        out.extend(wire::attrs(list).filter_map(|(_, e)| element(e)));
    })?;
    if shape.is_tree() {
        return Ok(tree(raw));
    }
    let whole = |e: Element| {
        (
            Key::from_bytes(&e.key, e.key_end.as_deref().unwrap_or(&e.key)),
            e.datum,
        )
    };
    Ok(raw.into_iter().map(whole).collect())
}

/// An element as dumped.
struct Element {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    datum: Datum,
    end: bool,
}

fn element(bytes: &[u8]) -> Option<Element> {
    let value = |kind| {
        wire::find(bytes, kind)
            .and_then(|d| wire::find(d, c::NFTA_DATA_VALUE))
            .map(<[u8]>::to_vec)
    };
    let flags = wire::find(bytes, c::NFTA_SET_ELEM_FLAGS)
        .and_then(wire::be32)
        .unwrap_or_default();
    Some(Element {
        key: value(c::NFTA_SET_ELEM_KEY)?,
        key_end: value(c::NFTA_SET_ELEM_KEY_END),
        datum: wire::find(bytes, c::NFTA_SET_ELEM_DATA).map_or(Datum::None, datum),
        end: flags & c::NFT_SET_ELEM_INTERVAL_END != 0,
    })
}

fn datum(bytes: &[u8]) -> Datum {
    if let Some(value) = wire::find(bytes, c::NFTA_DATA_VALUE) {
        return Datum::Value(value.into());
    }
    let verdict = wire::find(bytes, c::NFTA_DATA_VERDICT).unwrap_or_default();
    let code = wire::find(verdict, c::NFTA_VERDICT_CODE)
        .and_then(wire::be32)
        .unwrap_or_default()
        .cast_signed();
    // A name that is none of ours makes a verdict that equals no desired one.
    let chain = || {
        let name = wire::find(verdict, c::NFTA_VERDICT_CHAIN)
            .map(wire::text)
            .unwrap_or_default();
        Name::new(&name).unwrap_or_else(|_| Name::fixed("not-ours"))
    };
    Datum::Verdict(match code {
        c::NF_ACCEPT => Verdict::Accept,
        c::NFT_RETURN => Verdict::Return,
        c::NFT_CONTINUE => Verdict::Continue,
        c::NFT_JUMP => Verdict::Jump(chain()),
        c::NFT_GOTO => Verdict::Goto(chain()),
        _ => Verdict::Drop,
    })
}

/// Pairs starts and ends of a tree, which the kernel dumps as elements of their own.
fn tree(mut raw: Vec<Element>) -> BTreeMap<Key, Datum> {
    // Where one range ends and the next begins, the end comes first.
    raw.sort_by(|a, b| (&a.key, !a.end).cmp(&(&b.key, !b.end)));
    let mut out = BTreeMap::new();
    let mut open: Option<Element> = None;
    for e in raw {
        let last = predecessor(&e.key);
        if let (Some(start), Some(last)) = (open.take(), last) {
            out.insert(Key::from_bytes(&start.key, &last), start.datum);
        }
        if !e.end {
            open = Some(e);
        }
    }
    if let Some(start) = open {
        let top = vec![0xff; start.key.len()];
        out.insert(Key::from_bytes(&start.key, &top), start.datum);
    }
    out
}

/// The register content one lower, or `None` before zero.
fn predecessor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut prev = bytes.to_vec();
    for b in prev.iter_mut().rev() {
        let (diff, borrow) = b.overflowing_sub(1);
        *b = diff;
        if !borrow {
            return Some(prev);
        }
    }
    None
}
