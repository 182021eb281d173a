//! One measured run: start the daemon, announce, withdraw, announce again, drop a session.

use crate::dut::{DUT_AS, DUT_IP, Dut, DutOptions, Kind, PORT};
use crate::engine::{Engine, Peer};
use crate::netns::Net;
use crate::scenario::Scenario;
use crate::usage::{self, Usage};
use crate::workload::Workload;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// From the first byte until every receiver is complete; none: timed out.
    pub(crate) converged_s: Option<f64>,
    /// From the first byte until the last UPDATE before the quiet time.
    pub(crate) settled_s: f64,
    /// From the first byte until the daemon's sockets had taken all that was sent.
    pub(crate) sent_s: f64,
    pub(crate) dut_cpu_s: f64,
    pub(crate) bench_cpu_s: f64,
    /// Share of the machine's CPU that others used meanwhile; a high one spoils the run.
    pub(crate) other_cpu: f64,
    pub(crate) dut_rss_kb: u64,
    pub(crate) dut_peak_kb: u64,
    /// UPDATE messages the receivers got.
    pub(crate) updates: u64,
    /// Fewest and most prefixes a receiver had at the end.
    pub(crate) have_min: usize,
    pub(crate) have_max: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) dut: String,
    pub(crate) version: String,
    pub(crate) scenario: String,
    pub(crate) prefixes: usize,
    pub(crate) senders: usize,
    pub(crate) receivers: usize,
    pub(crate) attr_sets: usize,
    pub(crate) seed: u64,
    /// UPDATE messages all senders send to announce everything.
    pub(crate) messages: usize,
    pub(crate) establish_s: f64,
    pub(crate) threads: u64,
    pub(crate) idle_rss_kb: u64,
    pub(crate) rss_per_route: f64,
    pub(crate) announce: Phase,
    pub(crate) withdraw: Phase,
    pub(crate) reannounce: Phase,
    pub(crate) flap: Phase,
    /// What went wrong; empty when nothing did.
    pub(crate) problem: String,
}

pub(crate) struct Limits {
    pub(crate) timeout: Duration,
    pub(crate) quiet: Duration,
}

pub(crate) fn run(
    kind: Kind,
    options: &DutOptions,
    scenario: &Scenario,
    load: &Workload,
    seed: u64,
    limits: &Limits,
    dir: &Path,
) -> Result<Run> {
    let specs = scenario.peers();
    let only: Vec<_> = specs.iter().map(|s| s.0.clone()).collect();
    let ips: Vec<_> = only.iter().map(|p| p.ip).collect();
    let net = Net::create(DUT_IP, &ips)?;
    let mut dut = net.in_dut(|| Dut::start(kind, &only, dir, options))?;
    let target = SocketAddrV4::new(DUT_IP, PORT);
    let mut engine = Engine::new(target, DUT_AS, &load.table, load.prefixes.len(), &specs)?;

    let started = Instant::now();
    if let Err(e) = engine.establish(Duration::from_secs(60)) {
        if let Some(status) = dut.exited() {
            bail!(
                "the daemon ended ({status}); see {}",
                dir.join("dut.log").display()
            );
        }
        return Err(e);
    }
    let establish_s = started.elapsed().as_secs_f64();
    // Let the daemon finish what it does after the sessions' start.
    engine.run_until(Instant::now() + Duration::from_secs(1), |_| false)?;

    let idle = usage::tree(dut.pid());
    let mut run = Run {
        dut: kind.name(options),
        version: kind.version(options),
        scenario: scenario.name.clone(),
        prefixes: scenario.total(),
        senders: scenario.shares.len(),
        receivers: specs.iter().filter(|s| s.0.receiver).count(),
        attr_sets: scenario.attr_sets,
        seed,
        messages: load.senders.iter().map(|s| s.messages).sum(),
        establish_s,
        threads: 0,
        idle_rss_kb: idle.rss_kb,
        rss_per_route: 0.0,
        announce: Phase::default(),
        withdraw: Phase::default(),
        reannounce: Phase::default(),
        flap: Phase::default(),
        problem: String::new(),
    };
    let mut test = Test {
        engine,
        pid: dut.pid(),
        limits,
        withdraws_on_close: kind != Kind::Relay,
    };
    if let Err(e) = test.phases(scenario, load, &mut run) {
        run.problem = format!("{e:#}");
    }
    run.threads = usage::tree(dut.pid()).threads;
    if let Some(status) = dut.exited() {
        run.problem += &format!("; the daemon ended: {status}");
    }
    drop(test);
    drop(dut);
    drop(net);
    Ok(run)
}

struct Test<'a> {
    engine: Engine<'a>,
    pid: u32,
    limits: &'a Limits,
    /// The relay only copies messages, so a lost session means nothing to it.
    withdraws_on_close: bool,
}

impl Test<'_> {
    fn phases(&mut self, scenario: &Scenario, load: &Workload, run: &mut Run) -> Result<()> {
        let total = scenario.total();
        let own = |p: &Peer| match p.spec.sender {
            Some(i) if !scenario.overlap => scenario.shares[i],
            _ => 0,
        };
        let full = |p: &Peer, have: usize| have == total - own(p);

        let announce = |e: &mut Engine| {
            (0..load.senders.len()).try_for_each(|i| e.queue(i, load.senders[i].announce.clone()))
        };
        let withdraw = |e: &mut Engine| {
            (0..load.senders.len()).try_for_each(|i| e.queue(i, load.senders[i].withdraw.clone()))
        };
        self.phase("announce", announce, full, &mut run.announce)?;
        let grown = run.announce.dut_rss_kb.saturating_sub(run.idle_rss_kb);
        run.rss_per_route = grown as f64 * 1024.0 / total as f64;
        self.phase("withdraw", withdraw, |_, have| have == 0, &mut run.withdraw)?;
        self.phase("second announce", announce, full, &mut run.reannounce)?;
        if !self.withdraws_on_close {
            return Ok(());
        }

        let gone = scenario.flap_sender();
        let lost = if scenario.overlap && scenario.shares.len() > 1 {
            0
        } else {
            scenario.shares[gone]
        };
        let flapped = |p: &Peer, have: usize| {
            let from_gone = p.view.as_ref().map_or(0, |v| v.per_sender[gone]);
            have == total - own(p) - lost && from_gone == 0
        };
        self.phase("flap", |e| e.drop_peer(gone), flapped, &mut run.flap)
    }

    /// Starts something and waits until every receiver is `complete` and it is quiet.
    fn phase(
        &mut self,
        name: &str,
        start: impl FnOnce(&mut Engine) -> Result<()>,
        complete: impl Fn(&Peer, usize) -> bool,
        out: &mut Phase,
    ) -> Result<()> {
        let before: Usage = usage::tree(self.pid);
        let (own_before, updates_before) = (usage::own_cpu(), self.updates());
        let (busy_before, cpus) = usage::machine();
        let t0 = Instant::now();
        let deadline = t0 + self.limits.timeout;
        self.engine.last_update = t0;
        start(&mut self.engine)?;

        let mut sent = None;
        let done = |e: &Engine| {
            if sent.is_none() && e.drained() {
                sent = Some(t0.elapsed());
            }
            let all = (0..e.peers.len()).filter(|&i| e.is_up(i)).all(|i| {
                e.peers[i]
                    .view
                    .as_ref()
                    .is_none_or(|v| complete(&e.peers[i], v.have))
            });
            all || !e.lost.is_empty()
        };
        let converged = self.engine.run_until(deadline, done)?;
        let took = t0.elapsed();
        let busy = usage::machine().0 - busy_before;
        let ours = usage::tree(self.pid).cpu_s - before.cpu_s + usage::own_cpu() - own_before;
        out.other_cpu = ((busy - ours) / (cpus * took.as_secs_f64())).clamp(0.0, 1.0);
        if converged && self.engine.lost.is_empty() {
            out.converged_s = Some(took.as_secs_f64());
            let quiet = self.limits.quiet;
            self.engine.run_until(deadline, |e| {
                if sent.is_none() && e.drained() {
                    sent = Some(t0.elapsed());
                }
                sent.is_some() && e.last_update.elapsed() >= quiet
            })?;
        }
        let after = usage::tree(self.pid);
        out.settled_s = (self.engine.last_update - t0).as_secs_f64();
        out.sent_s = sent.unwrap_or(took).as_secs_f64();
        out.dut_cpu_s = after.cpu_s - before.cpu_s;
        out.bench_cpu_s = usage::own_cpu() - own_before;
        out.dut_rss_kb = after.rss_kb;
        out.dut_peak_kb = after.peak_kb;
        out.updates = self.updates() - updates_before;
        let have = || {
            self.engine
                .peers
                .iter()
                .filter_map(|p| p.view.as_ref())
                .map(|v| v.have)
        };
        out.have_min = have().min().unwrap_or(0);
        out.have_max = have().max().unwrap_or(0);
        if let Some(lost) = self.engine.lost.first() {
            bail!("{name}: {} sessions lost, first {lost}", self.engine.lost.len());
        }
        if !converged {
            bail!(
                "{name}: not complete after {:.0} s; receivers have {} to {} prefixes",
                took.as_secs_f64(),
                out.have_min,
                out.have_max
            );
        }
        Ok(())
    }

    fn updates(&self) -> u64 {
        self.engine
            .peers
            .iter()
            .filter(|p| p.spec.receiver)
            .map(|p| p.updates)
            .sum()
    }
}
