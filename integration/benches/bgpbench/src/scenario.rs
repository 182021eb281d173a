//! What a run does: who sends what to whom.

use crate::dut::DUT_AS;
use crate::engine::{PeerSpec, RECEIVER_AS, SENDER_AS};
use crate::workload::{SenderSpec, Shape};
use anyhow::{Result, bail, ensure};
use clap::Args;
use std::net::Ipv4Addr;
use std::ops::Range;

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    /// Prefixes each sender announces; with `overlap` all the same ones.
    pub(crate) shares: Vec<usize>,
    pub(crate) overlap: bool,
    /// Attribute sets, over all senders (with `overlap`: of each sender).
    pub(crate) attr_sets: usize,
    pub(crate) ibgp_senders: bool,
    pub(crate) ibgp_receivers: bool,
    /// Receivers that send nothing.
    pub(crate) receivers: usize,
    /// Senders count what they receive, too.
    pub(crate) senders_receive: bool,
}

/// Settings of `--scenario custom`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Custom {
    #[arg(long, default_value_t = 1)]
    pub(crate) senders: usize,
    #[arg(long, default_value_t = 1)]
    pub(crate) receivers: usize,
    /// Distinct prefixes in total.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) prefixes: usize,
    /// Distinct attribute sets; 0 means one for every 8 prefixes.
    #[arg(long, default_value_t = 0)]
    pub(crate) attrs: usize,
    /// All senders announce the same prefixes.
    #[arg(long)]
    pub(crate) overlap: bool,
    #[arg(long)]
    pub(crate) ibgp_senders: bool,
    #[arg(long)]
    pub(crate) ibgp_receivers: bool,
    /// Senders count what they receive, too.
    #[arg(long)]
    pub(crate) senders_receive: bool,
    /// /26 blocks of one pool instead of Internet-like prefixes.
    #[arg(long)]
    pub(crate) blocks: bool,
}

pub(crate) const NAMES: [&str; 7] = ["a100k", "a500k", "a1m", "b", "c", "c9600", "d"];

impl Scenario {
    pub(crate) fn named(name: &str, custom: &Custom) -> Result<Self> {
        let internet = |shares: Vec<usize>, receivers, overlap| {
            let total: usize = if overlap { shares[0] } else { shares.iter().sum() };
            Scenario {
                name: name.to_owned(),
                shape: Shape::Internet,
                shares,
                overlap,
                attr_sets: total / 8,
                ibgp_senders: false,
                ibgp_receivers: false,
                receivers,
                senders_receive: false,
            }
        };
        let reflector = |shares: Vec<usize>| Scenario {
            shape: Shape::Blocks,
            attr_sets: shares.len(),
            ibgp_senders: true,
            ibgp_receivers: true,
            senders_receive: true,
            ..internet(shares, 0, false)
        };
        Ok(match name {
            "a100k" => internet(vec![100_000], 1, false),
            "a500k" => internet(vec![500_000], 1, false),
            "a1m" => internet(vec![1_000_000], 1, false),
            "b" => internet(vec![10_000; 10], 10, false),
            "c" => reflector([[1; 50].as_slice(), &[10; 100]].concat()),
            "c9600" => reflector(vec![64; 150]),
            "d" => internet(vec![200_000; 4], 4, true),
            "custom" => from_custom(custom)?,
            _ => bail!("no scenario {name}; there are {} and custom", NAMES.join(", ")),
        })
    }

    /// Distinct prefixes.
    pub(crate) fn total(&self) -> usize {
        if self.overlap {
            self.shares[0]
        } else {
            self.shares.iter().sum()
        }
    }

    /// The sender whose session is dropped at the end.
    pub(crate) fn flap_sender(&self) -> usize {
        self.shares.len() - 1
    }

    /// Every peer, with the prefix numbers that only it announces; senders come first.
    pub(crate) fn peers(&self) -> Vec<(PeerSpec, Range<usize>)> {
        let mut out = Vec::new();
        let mut first = 0;
        for (i, count) in self.shares.iter().enumerate() {
            let own = if self.overlap { 0..0 } else { first..first + count };
            first += count;
            let asn = if self.ibgp_senders {
                DUT_AS
            } else {
                SENDER_AS + i as u32
            };
            let spec = PeerSpec {
                ip: peer_ip(i),
                asn,
                ibgp: self.ibgp_senders,
                sender: Some(i),
                receiver: self.senders_receive,
            };
            out.push((spec, own));
        }
        for i in 0..self.receivers {
            let asn = if self.ibgp_receivers {
                DUT_AS
            } else {
                RECEIVER_AS + i as u32
            };
            let spec = PeerSpec {
                ip: peer_ip(self.shares.len() + i),
                asn,
                ibgp: self.ibgp_receivers,
                sender: None,
                receiver: true,
            };
            out.push((spec, 0..0));
        }
        out
    }

    pub(crate) fn senders(&self) -> Vec<SenderSpec> {
        let mut first = 0;
        let mut out = Vec::new();
        for (i, &count) in self.shares.iter().enumerate() {
            let attr_sets = if self.overlap {
                self.attr_sets
            } else {
                self.attr_sets / self.shares.len()
            };
            out.push(SenderSpec {
                tag_as: SENDER_AS + i as u32,
                next_hop: peer_ip(i),
                ibgp: self.ibgp_senders,
                first: if self.overlap { 0 } else { first },
                count,
                attr_sets,
            });
            first += count;
        }
        out
    }
}

fn from_custom(c: &Custom) -> Result<Scenario> {
    ensure!(
        c.senders > 0 && c.senders + c.receivers <= 5000,
        "1 to 5000 peers, one sends"
    );
    ensure!(c.receivers > 0 || c.senders_receive, "nobody would receive");
    let share = if c.overlap {
        c.prefixes
    } else {
        c.prefixes / c.senders
    };
    ensure!(share > 0, "fewer prefixes than senders");
    Ok(Scenario {
        name: "custom".into(),
        shape: if c.blocks { Shape::Blocks } else { Shape::Internet },
        shares: vec![share; c.senders],
        overlap: c.overlap,
        attr_sets: if c.attrs == 0 { c.prefixes / 8 } else { c.attrs },
        ibgp_senders: c.ibgp_senders,
        ibgp_receivers: c.ibgp_receivers,
        receivers: c.receivers,
        senders_receive: c.senders_receive,
    })
}

fn peer_ip(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 128, 1 + (i / 250) as u8, 1 + (i % 250) as u8)
}
