//! The daemons at the other end: one configuration in neutral words, written in the language of each.

use crate::lab::{Daemon, Lab, eventually};
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// OpenBGPD's processes go there, and find nothing.
const OPENBGPD_CHROOT: &str = "/run/openbgpd";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bird,
    Frr,
    GoBgp,
    OpenBgpd,
}

/// What is off unless a case asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    /// Several paths a prefix, both ways (RFC 7911).
    AddPath,
    /// Stale routes stay beyond the restart time, which is 1 s (RFC 9494).
    LongLived,
    /// Both families over the IPv6 session, and no other session (RFC 8950).
    ExtendedNextHop,
}

/// What it shall do. A session with 10.9.0.1 carries IPv4 and one with fd09::1 IPv6.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) asn: u32,
    pub(super) password: Option<&'static str>,
    pub(super) ttl_security: bool,
    /// Announced, with community 64999:7.
    pub(super) networks: Vec<&'static str>,
    /// It reflects between us and 10.9.0.3.
    pub(super) reflects: bool,
    /// It is another start of the same router.
    pub(super) restarted: bool,
    pub(super) feature: Option<Feature>,
}

impl Setup {
    fn has(&self, feature: Feature) -> bool {
        self.feature == Some(feature)
    }
}

pub(super) const SETUP: Setup = Setup {
    asn: 64999,
    password: None,
    ttl_security: false,
    networks: Vec::new(),
    reflects: false,
    restarted: false,
    feature: None,
};

/// A daemon that runs.
pub(super) struct Theirs<'a> {
    lab: &'a Lab,
    kind: Kind,
    setup: Setup,
    process: Option<Daemon>,
}

impl<'a> Theirs<'a> {
    /// Starts it; its networks are announced.
    pub(super) async fn start(lab: &'a Lab, kind: Kind, setup: Setup) -> Self {
        let mut theirs = Self {
            lab,
            kind,
            setup,
            process: None,
        };
        theirs.run().await;
        theirs
    }

    /// SIGKILL, and a new start of the same router.
    pub(super) async fn restart(&mut self) {
        self.kill();
        self.setup.restarted = true;
        self.run().await;
    }

    /// SIGKILL: no goodbye.
    pub(super) fn kill(&mut self) {
        drop(self.process.take());
    }

    async fn run(&mut self) {
        let (dir, config) = (self.lab.dir().to_owned(), self.path("config"));
        let text = match self.kind {
            Kind::Bird => bird(&self.setup),
            Kind::Frr => frr(&self.setup),
            Kind::GoBgp => gobgp(&self.setup),
            Kind::OpenBgpd => openbgpd(&self.setup, &self.path("ctl").display().to_string()),
        };
        std::fs::write(&config, text).unwrap();
        // OpenBGPD refuses a configuration that others can read.
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (config, ctl) = (
            config.display().to_string(),
            self.path("ctl").display().to_string(),
        );
        let (dir, pid) = (dir.display().to_string(), self.path("pid").display().to_string());
        let mut command: Vec<&str> = match self.kind {
            Kind::Bird => vec!["bird", "-f", "-c", &config, "-s", &ctl],
            Kind::Frr => vec![
                "/usr/lib/frr/bgpd",
                "-S",
                "-Z",
                "-P",
                "0",
                "-p",
                "179",
                "-f",
                &config,
                "-i",
                &pid,
                "--vty_socket",
                &dir,
            ],
            Kind::GoBgp => vec![
                "gobgpd",
                "-f",
                &config,
                "--api-hosts",
                "127.0.0.1:50051",
                "--pprof-disable",
            ],
            Kind::OpenBgpd => vec!["bgpd", "-d", "-f", &config],
        };
        if self.kind == Kind::GoBgp && self.setup.restarted {
            command.push("-r");
        }
        if self.kind == Kind::OpenBgpd {
            std::fs::create_dir_all(OPENBGPD_CHROOT).unwrap();
        }
        self.process = Some(self.lab.daemon(&command));
        let answers = async || self.ask(&["summary"]);
        eventually("the daemon answers", answers, |text: &String| !text.is_empty()).await;
        if self.kind == Kind::GoBgp {
            for network in self.setup.networks.clone() {
                let family = family(network);
                self.lab.inside(&[
                    "gobgp",
                    "global",
                    "rib",
                    "add",
                    network,
                    "origin",
                    "igp",
                    "community",
                    "64999:7",
                    "-a",
                    family,
                ]);
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    /// What its command line says; empty while it cannot.
    fn ask(&self, what: &[&str]) -> String {
        let (ctl, dir) = (
            self.path("ctl").display().to_string(),
            self.lab.dir().display().to_string(),
        );
        let net = what.get(1).copied().unwrap_or_default();
        let summary = net.is_empty();
        let frr = format!("show bgp {} unicast {net}", family(net));
        let command: Vec<&str> = match (self.kind, summary) {
            (Kind::Bird, true) => vec!["birdc", "-s", &ctl, "show", "protocols"],
            (Kind::Bird, false) => vec!["birdc", "-s", &ctl, "show", "route", "all", net],
            (Kind::Frr, true) => vec![
                "vtysh",
                "--vty_socket",
                &dir,
                "-d",
                "bgpd",
                "-c",
                "show bgp summary",
            ],
            (Kind::Frr, false) => vec!["vtysh", "--vty_socket", &dir, "-d", "bgpd", "-c", &frr],
            (Kind::GoBgp, true) => vec!["gobgp", "neighbor"],
            (Kind::GoBgp, false) => vec!["gobgp", "global", "rib", net, "-a", family(net)],
            (Kind::OpenBgpd, true) => vec!["bgpctl", "-s", &ctl, "show", "summary"],
            (Kind::OpenBgpd, false) => vec!["bgpctl", "-s", &ctl, "show", "rib", "detail", net],
        };
        self.lab.try_inside(&command).unwrap_or_default()
    }

    /// The route as it prints it, spaces and brackets of communities taken out; empty if it has none.
    pub(super) fn route(&self, prefix: &str) -> String {
        let text = self.ask(&["route", prefix]);
        if text.contains(prefix) && !text.contains("not in table") && !text.contains("not found") {
            text.replace("(64512,7)", "64512:7")
                .replace("(64512, 1, 2)", "64512:1:2")
        } else {
            String::new()
        }
    }

    /// Waits until it has the route, or has it no more.
    pub(super) async fn has(&self, prefix: &str, has: bool) -> String {
        let what = format!("{prefix} in {:?}: {has}", self.kind);
        eventually(&what, async || self.route(prefix), |text| text.is_empty() != has).await
    }

    /// It asks us for our routes again.
    pub(super) fn refresh(&self) {
        let (ctl, dir) = (
            self.path("ctl").display().to_string(),
            self.lab.dir().display().to_string(),
        );
        let command: Vec<&str> = match self.kind {
            Kind::Bird => vec!["birdc", "-s", &ctl, "reload", "in", "all"],
            Kind::Frr => vec![
                "vtysh",
                "--vty_socket",
                &dir,
                "-d",
                "bgpd",
                "-c",
                "clear bgp * soft in",
            ],
            Kind::GoBgp => vec!["gobgp", "neighbor", "all", "softresetin"],
            Kind::OpenBgpd => vec!["bgpctl", "-s", &ctl, "neighbor", "fd09::1", "refresh"],
        };
        self.lab.inside(&command);
    }

    /// Whether it prints the originator of a reflected route.
    pub(super) fn shows_originator(&self, route: &str, originator: &str) -> bool {
        route.contains(originator)
    }
}

fn family(net: &str) -> &'static str {
    if net.contains(':') { "ipv6" } else { "ipv4" }
}

const OURS: [(&str, &str, &str); 2] = [("ipv4", "10.9.0.1", "10.9.0.2"), ("ipv6", "fd09::1", "fd09::2")];

/// Our addresses that it peers with, and its own, by family.
fn neighbours(setup: &Setup) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut out = OURS.to_vec();
    if setup.has(Feature::ExtendedNextHop) {
        out.remove(0);
    }
    if setup.reflects {
        out.push(("ipv4", "10.9.0.3", "10.9.0.2"));
    }
    out
}

fn bird(setup: &Setup) -> String {
    let mut out = "router id 10.9.0.2;\nprotocol device {}\nprotocol direct { ipv4; ipv6; }\n".to_owned();
    for (n, (family, ..)) in OURS.iter().enumerate() {
        let routes = setup.networks.iter().filter(|n| self::family(n) == *family);
        let routes: String = routes.map(|n| format!("route {n} blackhole; ")).collect();
        let _ = writeln!(out, "protocol static s{n} {{ {family}; {routes}}}");
    }
    for (n, (family, ours, own)) in neighbours(setup).into_iter().enumerate() {
        let hops = if setup.ttl_security {
            "direct; ttl security on;"
        } else {
            "multihop 64;"
        };
        let key = setup
            .password
            .map_or_else(String::new, |p| format!("password \"{p}\";"));
        let reflect = if setup.reflects { "rr client;" } else { "" };
        let learned = if setup.reflects {
            "if source = RTS_BGP then accept;"
        } else {
            ""
        };
        let restart = if setup.has(Feature::LongLived) {
            "graceful restart time 1; long lived graceful restart on; long lived stale time 60;"
        } else {
            ""
        };
        let paths = if setup.has(Feature::AddPath) {
            "add paths on;"
        } else {
            ""
        };
        let mut channels = vec![(family, "")];
        if setup.has(Feature::ExtendedNextHop) {
            channels.push(("ipv4", "extended next hop on;"));
        }
        let channels: String = channels
            .into_iter()
            .map(|(family, more)| {
                format!(
                    "{family} {{ import all; {paths} {more} export filter {{ if source = RTS_STATIC then \
             {{ bgp_community.add((64999,7)); accept; }} {learned} reject; }}; }}; "
                )
            })
            .collect();
        let _ = writeln!(
            out,
            "protocol bgp t{n} {{ local {own} as {}; neighbor {ours} as 64512; {hops} {key} {reflect} graceful restart on; {restart} \
             connect delay time 1; connect retry time 1; error wait time 1,2; {channels} }}",
            setup.asn
        );
    }
    out
}

fn frr(setup: &Setup) -> String {
    let mut out = format!(
        "frr defaults datacenter\nroute-map mark permit 10\n set community 64999:7\nrouter bgp {}\n bgp router-id 10.9.0.2\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast\n bgp graceful-restart\n \
         bgp graceful-restart preserve-fw-state\n coalesce-time 0\n",
        setup.asn
    );
    for (_, ours, _) in neighbours(setup) {
        let _ = writeln!(
            out,
            " neighbor {ours} remote-as 64512\n neighbor {ours} timers connect 1\n neighbor {ours} advertisement-interval 0"
        );
        if let Some(key) = setup.password {
            let _ = writeln!(out, " neighbor {ours} password {key}");
        }
        if setup.has(Feature::ExtendedNextHop) {
            let _ = writeln!(out, " neighbor {ours} capability extended-nexthop");
        }
        if setup.ttl_security {
            let _ = writeln!(out, " neighbor {ours} ttl-security hops 1");
        } else if setup.asn != 64512 {
            let _ = writeln!(out, " neighbor {ours} ebgp-multihop 64");
        }
    }
    for (family, ..) in OURS {
        let _ = writeln!(out, " address-family {family} unicast");
        for network in setup.networks.iter().filter(|n| self::family(n) == family) {
            let _ = writeln!(out, "  network {network} route-map mark");
        }
        let wide = setup.has(Feature::ExtendedNextHop);
        for (_, ours, _) in neighbours(setup)
            .into_iter()
            .filter(|(f, ..)| *f == family || wide)
        {
            let _ = writeln!(out, "  neighbor {ours} activate");
            if setup.has(Feature::AddPath) {
                let _ = writeln!(out, "  neighbor {ours} addpath-tx-all-paths");
            }
            if setup.reflects {
                let _ = writeln!(out, "  neighbor {ours} route-reflector-client");
            }
        }
        out += " exit-address-family\n";
    }
    out
}

fn gobgp(setup: &Setup) -> String {
    let mut out = format!(
        "[global.config]\nas = {}\nrouter-id = \"10.9.0.2\"\nport = 179\nlocal-address-list = [\"10.9.0.2\", \"fd09::2\"]\n",
        setup.asn
    );
    for (family, ours, own) in neighbours(setup) {
        let _ = writeln!(
            out,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{ours}\"\npeer-as = 64512\nauth-password = \"{}\"\n\
             [neighbors.transport.config]\nlocal-address = \"{own}\"\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\nhold-time = 90\nkeepalive-interval = 30\n\
             [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {}\nlong-lived-enabled = {}",
            setup.password.unwrap_or_default(),
            if setup.has(Feature::LongLived) { 1 } else { 60 },
            setup.has(Feature::LongLived)
        );
        if setup.ttl_security {
            out += "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
        } else if setup.asn != 64512 {
            out += "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 64\n";
        }
        if setup.reflects {
            out += "[neighbors.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = \"10.9.0.2\"\n";
        }
        let _ = writeln!(
            out,
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true"
        );
        if setup.has(Feature::LongLived) {
            out += "[neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = 60\n";
        }
        if setup.has(Feature::AddPath) {
            out += "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 4\n";
        }
    }
    out
}

fn openbgpd(setup: &Setup, ctl: &str) -> String {
    let mut out = format!(
        "AS {}\nrouter-id 10.9.0.2\nlisten on 10.9.0.2\nlisten on fd09::2\nfib-update no\nconnect-retry 1\nsocket \"{ctl}\"\n",
        setup.asn
    );
    for network in &setup.networks {
        let _ = writeln!(out, "network {network} set community 64999:7");
    }
    for (family, ours, own) in neighbours(setup) {
        let family = if family == "ipv6" { "IPv6" } else { "IPv4" };
        let _ = writeln!(
            out,
            "neighbor {ours} {{\nremote-as 64512\nlocal-address {own}\nannounce {family} unicast"
        );
        if family == "IPv6" {
            out += "announce IPv4 none\n";
        }
        if let Some(key) = setup.password {
            let _ = writeln!(out, "tcp md5sig password {key}");
        }
        if setup.ttl_security {
            out += "ttl-security yes\n";
        } else if setup.asn != 64512 {
            out += "multihop 64\n";
        }
        if setup.reflects {
            out += "route-reflector\n";
        }
        out += "}\n";
    }
    out + "allow from any\nallow to any\n"
}
