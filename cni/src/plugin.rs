//! From environment and standard input to one request and one printed answer.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;
use twill_proto::cni::{self, Attachment, Request, gc::Valid, reply::Outcome, request::Op, spool};

use crate::args::{self, Command, Env, Target};
use crate::conf::{self, Conf, SpecVersion};
use crate::daemon::{self, Failure, Patience};
use crate::error::{CniError, code};
use crate::{fd, output, prev};

/// Name of the daemon's socket under the run dir.
const SOCKET: &str = "cni.sock";

/// ADD: a daemon that restarts is back within a second or the runtime tries again; a runtime waits minutes.
const ADD: Patience = Patience {
    connect: Duration::from_secs(1),
    total: Duration::from_secs(60),
};
/// DEL and the rest: the runtime holds a lock on the pod meanwhile, and DEL has the spool.
const QUICK: Patience = Patience {
    connect: Duration::from_millis(200),
    total: Duration::from_secs(10),
};

/// Carries out one call: what to print and how to exit.
pub(crate) fn run(env: Env<'_>, stdin: &[u8]) -> (String, ExitCode) {
    match dispatch(env, stdin) {
        Ok(printed) => (printed, ExitCode::SUCCESS),
        Err(error) => failure(conf::version_of(stdin), &error),
    }
}

/// The printed form of an error.
pub(crate) fn failure(version: &str, error: &CniError) -> (String, ExitCode) {
    let mut value = serde_json::to_value(error).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        map.insert("cniVersion".into(), version.into());
    }
    (value.to_string(), ExitCode::FAILURE)
}

fn dispatch(env: Env<'_>, stdin: &[u8]) -> Result<String, CniError> {
    let started = Instant::now();
    let command = args::command(env)?;
    if command == Command::Version {
        let given = conf::version_given(stdin);
        return Ok(output::versions(
            given.as_deref().unwrap_or(conf::version_of(stdin)),
        ));
    }
    let conf = Conf::parse(stdin)?;
    let needs = match command {
        Command::Check => SpecVersion::V0_4_0,
        Command::Status | Command::Gc => SpecVersion::V1_1_0,
        Command::Add | Command::Del | Command::Version => SpecVersion::V0_3_1,
    };
    if conf.version < needs {
        let msg = format!("{command:?} needs cniVersion {} or later", needs.as_str());
        return Err(CniError::new(code::INCOMPATIBLE_VERSION, msg));
    }
    let answer = match command {
        Command::Add => add(&conf, &args::target(env)?),
        Command::Del => del(&conf, &args::target(env)?),
        Command::Check => check(&conf, &args::target(env)?),
        Command::Status => status(&conf),
        Command::Gc => gc(&conf),
        Command::Version => Ok(output::versions(conf.version.as_str())),
    };
    if conf.is_verbose() {
        say(&conf, command, started, &answer);
    }
    answer
}

/// `log_level: debug`: one line about the call and one for each key that does nothing, to standard error, which runtimes
/// put into their own log. Whoever does not read it loses nothing.
fn say(conf: &Conf, command: Command, started: Instant, answer: &Result<String, CniError>) {
    let outcome = match answer {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("code {}: {}", error.code, error.msg),
    };
    let (network, took) = (&conf.raw.name, started.elapsed().as_millis());
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "twill: {command:?} network {network}: {outcome}, {took} ms");
    for note in &conf.ignored {
        let _ = writeln!(err, "twill: not used: {note}");
    }
}

fn add(conf: &Conf, target: &Target) -> Result<String, CniError> {
    let previous = conf.raw.prev_result.as_ref();
    if previous.is_some_and(|p| prev::has_interface(p, &target.ifname)) {
        return Err(CniError::config(format_args!(
            "prevResult holds {} already: twill makes the pod's interface and must stand first in the chain",
            target.ifname
        )));
    }
    let fds = pod_fds(conf, target)?;
    match exchange(
        &conf.run_dir(),
        Op::Add(add_request(conf, target)),
        Some(&fds),
        ADD,
    )? {
        Outcome::Attached(attached) => Ok(output::added(conf.version, &attached, conf.dns(), previous)),
        _ => Err(CniError::new(
            code::IO,
            "the daemon answered ADD with something that is no result",
        )),
    }
}

fn pod_fds(conf: &Conf, target: &Target) -> Result<fd::PodFds, CniError> {
    if target.netns.is_empty() {
        return Err(CniError::environment("CNI_NETNS", "is empty"));
    }
    let allow = conf.raw.container_settings.allow_ip_forwarding;
    let forwarding = if allow.is_some_and(bool::from) {
        fd::Forwarding::On
    } else {
        fd::Forwarding::AsFound
    };
    fd::open(&target.netns, forwarding)
}

fn add_request(conf: &Conf, target: &Target) -> cni::Add {
    let raw = &conf.raw;
    cni::Add {
        attachment: Some(attachment(conf, target)),
        labels: conf.labels(),
        annotations: conf.annotations(),
        policy_type: raw.policy.kind.clone(),
        mtu: raw.mtu,
        requested_ips: conf.requested_ips(&target.pod.ips),
        ipv4_pools: raw.ipam.ipv4_pools.clone(),
        ipv6_pools: raw.ipam.ipv6_pools.clone(),
        assign_ipv4: raw.ipam.assign_ipv4.is_none_or(bool::from),
        assign_ipv6: raw.ipam.assign_ipv6.is_some_and(bool::from),
        requested_mac: raw.runtime.mac.clone(),
        deadline_ms: u32::try_from(ADD.total.as_millis()).unwrap_or(u32::MAX),
        service_account: raw.args.twill.service_account.clone(),
        nodename: raw.nodename.clone(),
        ip_addrs_no_ipam: raw.feature_control.ip_addrs_no_ipam,
        floating_ips: raw.feature_control.floating_ips,
        policy_timeout_secs: u32::try_from(raw.policy_setup_timeout_seconds).unwrap_or(u32::MAX),
        ignored: conf.ignored.clone(),
    }
}

/// Deletion never wedges a pod: a daemon that is away or silent hears of it later.
fn del(conf: &Conf, target: &Target) -> Result<String, CniError> {
    let attachment = attachment(conf, target);
    let request = cni::Del {
        attachment: Some(attachment.clone()),
        replayed: false,
    };
    let run_dir = conf.run_dir();
    match call(&run_dir, Op::Del(request), None, QUICK) {
        Ok(Outcome::Error(e)) => Err(reported(e)),
        Ok(_) => Ok(String::new()),
        Err(Failure::Garbled(reason)) => Err(CniError::new(code::IO, reason)),
        Err(Failure::Away(reason)) => spool::record(&run_dir.join(spool::SPOOL_DIR), &attachment)
            .map(|()| String::new())
            .map_err(|e| {
                CniError::new(
                    code::TRY_AGAIN,
                    format_args!("{reason}; recording the deletion for later failed too: {e}"),
                )
            }),
    }
}

fn check(conf: &Conf, target: &Target) -> Result<String, CniError> {
    let Some(previous) = &conf.raw.prev_result else {
        return Err(CniError::config("CHECK needs prevResult"));
    };
    let result = prev::read(previous)?;
    let fds = pod_fds(conf, target)?;
    let request = cni::Check {
        attachment: Some(attachment(conf, target)),
        ips: result.addresses_of(&target.ifname),
        interfaces: result.interfaces(),
        routes: result.routes(),
        annotations: conf.annotations(),
    };
    exchange(&conf.run_dir(), Op::Check(request), Some(&fds), QUICK).map(|_| String::new())
}

fn status(conf: &Conf) -> Result<String, CniError> {
    let request = cni::Status {
        network: conf.raw.name.clone(),
    };
    match call(&conf.run_dir(), Op::Status(request), None, QUICK) {
        Ok(Outcome::Error(e)) => Err(reported(e)),
        Ok(_) => Ok(String::new()),
        Err(Failure::Away(reason) | Failure::Garbled(reason)) => {
            Err(CniError::new(code::NOT_AVAILABLE, reason))
        }
    }
}

/// A runtime that does not say what stays (libcni without arguments, which has called DEL for what it knew) frees nothing:
/// taking silence for an empty list would cut off every running pod.
fn gc(conf: &Conf) -> Result<String, CniError> {
    let Some(valid) = conf.valid_attachments() else {
        return Ok(String::new());
    };
    let pair = |v: &conf::ValidAttachment| Valid {
        container_id: v.container_id.clone(),
        ifname: v.ifname.clone(),
    };
    let request = cni::Gc {
        network: conf.raw.name.clone(),
        valid: valid.iter().map(pair).collect(),
    };
    exchange(&conf.run_dir(), Op::Gc(request), None, QUICK).map(|_| String::new())
}

fn exchange(
    run_dir: &Path,
    op: Op,
    fds: Option<&fd::PodFds>,
    patience: Patience,
) -> Result<Outcome, CniError> {
    match call(run_dir, op, fds, patience) {
        Ok(Outcome::Error(e)) => Err(reported(e)),
        Ok(outcome) => Ok(outcome),
        Err(Failure::Away(reason)) => Err(CniError::new(code::TRY_AGAIN, reason)),
        Err(Failure::Garbled(reason)) => Err(CniError::new(code::IO, reason)),
    }
}

fn call(run_dir: &Path, op: Op, fds: Option<&fd::PodFds>, patience: Patience) -> Result<Outcome, Failure> {
    let reply = daemon::call(&run_dir.join(SOCKET), &Request { op: Some(op) }, fds, patience)?;
    reply
        .outcome
        .ok_or_else(|| Failure::Garbled("the daemon's reply is empty; is it older than this plugin?".into()))
}

fn reported(e: cni::Error) -> CniError {
    CniError {
        code: e.code,
        msg: e.msg,
        details: e.details,
    }
}

fn attachment(conf: &Conf, target: &Target) -> Attachment {
    Attachment {
        container_id: target.container_id.clone(),
        ifname: target.ifname.clone(),
        netns: target.netns.clone(),
        network: conf.raw.name.clone(),
        cni_version: conf.version.as_str().to_owned(),
        k8s_namespace: target.pod.namespace.clone(),
        k8s_pod: target.pod.name.clone(),
        k8s_pod_uid: target.pod.uid.clone(),
    }
}
