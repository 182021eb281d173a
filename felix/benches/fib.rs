//! What one prefix's change costs when the kernel holds many routes of ours: `cargo bench -p twill-felix --bench fib`. Needs
//! root; everything happens in a network namespace of its own.

use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use twill_felix::kernel::Fib;
use twill_felix::kernel::netns::Netns;
use twill_felix::plan::routes::{NextHop, Route};

/// Routes that the kernel holds, unless the last argument says another number.
const ROUTES: u32 = 100_000;
/// Changes that are measured, unless they take long: the kernel tells CPU time in steps of milliseconds.
const CHANGES: u32 = 1000;
/// So long is enough.
const ENOUGH: Duration = Duration::from_secs(5);

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn net(i: u32) -> IpNet {
    // Every third /24 of 10/8 and above, as a table of many origins.
    let address = 0x0a00_0000 + i * 0x300;
    IpNet::V4(Ipv4Net::new_assert(address.into(), 24))
}

fn via(last: u8) -> Option<Route> {
    Route::bgp([NextHop::via(IpAddr::from([172, 31, 0, last]))])
}

/// CPU time of this thread, the kernel's work for it included.
fn cpu() -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split_whitespace().next().ok_or("no figure in schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

fn measure(routes: u32) -> Outcome {
    for command in [
        "link add up0 type veth peer name up1",
        "address add 172.31.0.9/24 dev up0",
        "link set up0 up",
        "link set up1 up",
    ] {
        let done = Command::new("ip").args(command.split(' ')).status()?;
        if !done.success() {
            return Err(format!("ip {command}: {done}").into());
        }
    }
    let mut fib = Fib::open()?;
    let (begun, used) = (Instant::now(), cpu()?);
    for first in (0..routes).step_by(4096) {
        fib.learn((first..routes.min(first + 4096)).map(|i| (net(i), via(1))));
        fib.turn(true)?;
    }
    println!(
        "{routes} routes in {:?}, {:?} of CPU",
        begun.elapsed(),
        cpu()? - used
    );
    // What the notifications of all that leave to be done is no part of a change.
    fib.turn(true)?;
    let (mut changes, mut took) = (0, Vec::new());
    let (begun, used) = (Instant::now(), cpu()?);
    while changes < CHANGES && begun.elapsed() < ENOUGH {
        let one = Instant::now();
        fib.learn([(net(changes * (routes / CHANGES)), via(2))]);
        let turn = fib.turn(true)?;
        took.push(one.elapsed());
        assert_eq!(turn.applied.written, 1, "one change, one write");
        changes += 1;
    }
    let each = (cpu()? - used) / changes;
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    println!("{changes} changes of one prefix: {each:?} of CPU each on average, {median:?} in the median");
    Ok(())
}

fn main() -> Outcome {
    let routes = std::env::args().next_back().and_then(|n| n.parse().ok());
    Netns::new()?.run(|| measure(routes.unwrap_or(ROUTES)))
}
