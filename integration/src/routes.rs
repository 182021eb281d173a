//! Routes of the lab's namespaces: who made them, which are wrong, and which went away while we watched.

use crate::run::{self, wait_for};
use crate::state::State;
use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Route protocol of Twill's local routes: workloads, blackholes, tunnels, as Calico's Felix.
pub const LOCAL: &str = "80";
/// Route protocol of what Twill learned by BGP.
pub const BGP: &str = "81";
/// BIRD's own name for itself in `/etc/iproute2/rt_protos`.
const BIRD: &str = "bird";
/// How long an event may take to come out of `ip monitor`.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines that one monitor keeps: far more than a lab makes in a minute.
const LINES_MAX: usize = 100_000;

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; `0.0.0.0/0` for the default route.
    pub to: Ipv4Net,
    /// `unicast`, `blackhole`, `local`, ...
    pub kind: String,
    /// Next hop.
    pub via: Option<Ipv4Addr>,
    /// Device.
    pub dev: Option<String>,
    /// Route protocol, by name where iproute2 knows one.
    pub protocol: String,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != "unicast" {
            write!(f, "{} ", self.kind)?;
        }
        write!(f, "{}", self.to)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(dev) = &self.dev {
            write!(f, " dev {dev}")?;
        }
        write!(f, " proto {}", self.protocol)
    }
}

/// All IPv4 routes of a namespace, in every table.
///
/// # Errors
/// When `ip` fails or prints something else than routes.
pub fn all(netns: &str) -> Result<Vec<Route>> {
    let mut command = Command::new("ip");
    command.args([
        "-n", netns, "-4", "-details", "-json", "route", "show", "table", "all",
    ]);
    parse(&run::output(&mut command, b"")?)
}

fn parse(text: &str) -> Result<Vec<Route>> {
    let items: Vec<Value> = match text.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).context("reading ip's routes")?,
    };
    items.iter().map(route).collect()
}

fn route(item: &Value) -> Result<Route> {
    let text = |key: &str| item[key].as_str().map(str::to_owned);
    let to = text("dst").with_context(|| format!("a route without dst: {item}"))?;
    // A multipath route has its hops in a list; the first is enough to show it.
    let hop = |key: &str| text(key).or_else(|| item["nexthops"][0][key].as_str().map(str::to_owned));
    Ok(Route {
        to: prefix(&to).with_context(|| format!("destination {to:?}"))?,
        kind: text("type").unwrap_or_else(|| "unicast".to_owned()),
        via: hop("gateway").and_then(|via| via.parse().ok()),
        dev: hop("dev"),
        // Without a name in rt_protos, -json gives the number as a string, some versions as a number.
        protocol: text("protocol")
            .or_else(|| item["protocol"].as_u64().map(|n| n.to_string()))
            .unwrap_or_default(),
    })
}

fn prefix(text: &str) -> Option<Ipv4Net> {
    match text {
        "default" => Some(Ipv4Net::default()),
        text => text
            .parse()
            .ok()
            .or_else(|| text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from)),
    }
}

/// Whether two prefixes share an address. The default route is nobody's pool.
#[must_use]
pub fn overlaps(pool: Ipv4Net, to: Ipv4Net) -> bool {
    to.prefix_len() > 0 && (pool.contains(&to) || to.contains(&pool))
}

/// Looks for a route to a pool prefix that is neither ours (on a node) nor BIRD's (on a router), anywhere in the lab but in pods.
///
/// # Errors
/// Names the first wrong route and where it is.
pub fn check_makers(state: &State) -> Result<usize> {
    let topology = &state.topology;
    let mut looked = 0;
    for member in topology.members() {
        let allowed: &[&str] = if topology.nodes.iter().any(|n| n.name == member) {
            &[LOCAL, BGP]
        } else if topology.routers.iter().any(|r| r.name == member) {
            &[BIRD]
        } else {
            &[]
        };
        for route in all(&state.namespace(&member))?
            .iter()
            .filter(|r| overlaps(topology.pool.cidr, r.to))
        {
            looked += 1;
            ensure!(
                allowed.contains(&route.protocol.as_str()),
                "wrong route in {}: {route} is neither Twill's nor BIRD's",
                state.namespace(&member)
            );
        }
    }
    Ok(looked)
}

/// `ip monitor route` inside a namespace, from [`Watch::start`] to [`Watch::finish`].
#[derive(Debug)]
pub struct Watch {
    netns: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching; once this returns, no event is missed.
    ///
    /// # Errors
    /// When `ip` cannot be started or does not report.
    pub fn start(netns: &str) -> Result<Self> {
        let mut child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "ip",
                "-4",
                "-n",
                netns,
                "monitor",
                "route",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting ip monitor")?;
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let out = child.stdout.take().context("the monitor has an output")?;
        let reader = thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    if lines.len() < LINES_MAX {
                        lines.push(line);
                    }
                }
            }
        });
        let watch = Self {
            netns: netns.to_owned(),
            child,
            lines,
            reader: Some(reader),
        };
        watch.see_a_mark()?;
        Ok(watch)
    }

    /// Makes and removes a route far from any pool until the monitor has told it: then everything before has been told too.
    fn see_a_mark(&self) -> Result<()> {
        let mark = format!("198.18.{}.{}", rand::random::<u8>(), rand::random::<u8>());
        wait_for(
            &format!("ip monitor reports in {}", self.netns),
            MONITOR_TIMEOUT,
            || {
                crate::netns::ip(
                    &self.netns,
                    &format!("route replace blackhole {mark}/32\nroute del blackhole {mark}/32\n"),
                )?;
                let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                ensure!(
                    lines
                        .iter()
                        .any(|line| line.starts_with("Deleted") && line.contains(&mark)),
                    "no event yet"
                );
                Ok(())
            },
        )
    }

    /// Stops watching and returns the deletions of routes inside `pool`.
    ///
    /// # Errors
    /// When the monitor ended early or kept too many lines.
    pub fn finish(self, pool: Ipv4Net) -> Result<Vec<String>> {
        self.see_a_mark()?;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_MAX {
            bail!("ip monitor in {} told more than {LINES_MAX} lines", self.netns);
        }
        Ok(deletions(&lines, pool))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Lines of `ip monitor` that say that a route inside `pool` was deleted.
fn deletions(lines: &[String], pool: Ipv4Net) -> Vec<String> {
    let deleted = lines.iter().filter(|line| {
        let mut words = line.split_whitespace();
        // "Deleted [TYPE] DST ...": the type stands only when it is not unicast.
        words.next() == Some("Deleted")
            && words
                .take(2)
                .filter_map(prefix)
                .next()
                .is_some_and(|to| overlaps(pool, to))
    });
    deleted.cloned().collect()
}

/// What the root namespace holds that a lab could have left or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    facts: HashSet<String>,
}

impl Root {
    /// Looks at devices, addresses, routes, nf_tables tables and forwarding of the namespace we run in.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn look() -> Result<Self> {
        let mut facts = HashSet::new();
        let list = |words: &[&str]| -> Result<Vec<Value>> {
            let text = run::output(Command::new("ip").arg("-json").args(words), b"")?;
            Ok(if text.trim().is_empty() {
                Vec::new()
            } else {
                serde_json::from_str(&text)?
            })
        };
        for link in list(&["addr"])? {
            let name = link["ifname"].as_str().unwrap_or_default();
            facts.insert(format!("device {name}"));
            for address in link["addr_info"].as_array().into_iter().flatten() {
                facts.insert(format!("address {} on {name}", address["local"]));
            }
        }
        for family in ["-4", "-6"] {
            for route in list(&[family, "route", "show", "table", "all"])? {
                facts.insert(format!("route {} dev {}", route["dst"], route["dev"]));
            }
        }
        for line in run::output(Command::new("nft").args(["list", "tables"]), b"")?.lines() {
            facts.insert(format!("nft {line}"));
        }
        for key in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv4/conf/all/rp_filter",
            "ipv4/conf/all/proxy_arp",
        ] {
            // IPv6 may be off altogether.
            let value = std::fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap_or_default();
            facts.insert(format!("sysctl {key} = {}", value.trim()));
        }
        Ok(Self { facts })
    }

    /// # Errors
    /// Names what came or went since `before`.
    pub fn check_unchanged(&self, before: &Self) -> Result<()> {
        let mut changes: Vec<_> = self
            .facts
            .difference(&before.facts)
            .map(|f| format!("new {f}"))
            .collect();
        changes.extend(before.facts.difference(&self.facts).map(|f| format!("gone {f}")));
        changes.sort();
        ensure!(
            changes.is_empty(),
            "the root namespace changed: {}",
            changes.join("; ")
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_with_maker_and_kind() {
        let routes = parse(
            r#"[{"type":"unicast","dst":"default","gateway":"172.31.0.254","dev":"eth0","protocol":"bird","flags":[]},
                {"type":"blackhole","dst":"10.244.0.0/26","protocol":"80","flags":[]},
                {"type":"unicast","dst":"10.244.0.1","dev":"cali1","protocol":80,"scope":"link","flags":[]}]"#,
        )
        .unwrap();
        assert_eq!(routes[0].to.to_string(), "0.0.0.0/0");
        assert_eq!(routes[1].to_string(), "blackhole 10.244.0.0/26 proto 80");
        assert_eq!(routes[2].to_string(), "10.244.0.1/32 dev cali1 proto 80");
    }

    #[test]
    fn the_default_route_is_not_a_route_to_the_pool_but_a_larger_prefix_is() {
        let pool = "10.244.0.0/16".parse().unwrap();
        assert!(!overlaps(pool, Ipv4Net::default()));
        assert!(overlaps(pool, "10.0.0.0/8".parse().unwrap()));
        assert!(overlaps(pool, "10.244.3.4/32".parse().unwrap()));
        assert!(!overlaps(pool, "10.245.0.0/16".parse().unwrap()));
    }

    #[test]
    fn only_deletions_inside_the_pool_are_told() {
        let lines = [
            "10.244.0.0/26 via 172.31.0.1 dev eth0 proto bird",
            "Deleted 192.0.2.0/24 via 172.31.0.254 dev eth0",
            "Deleted 10.244.0.1 dev cali1 proto 80 scope link",
            "Deleted blackhole 10.244.0.0/26 proto 80",
        ]
        .map(str::to_owned);
        assert_eq!(deletions(&lines, "10.244.0.0/16".parse().unwrap()), &lines[2..]);
    }
}
