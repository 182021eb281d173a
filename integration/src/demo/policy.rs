//! Step 6: a default-deny and an allow policy, seen on new flows and on an established one, and taken away again.

use super::Scene;
use super::attach::NAMESPACE;
use super::reach::all_echo;
use crate::probe::{self, Flow, Kind, Probe, Seen};
use crate::run::wait_for;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// From `twillctl apply` to all verdicts as they should be, a pass of probes with their timeouts included.
const ENFORCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Denies everything towards `app == 'web'`, and lets `app == 'client'` in.
fn policies() -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: deny-web\nspec:\n  order: 1000\n  \
         selector: app == 'web'\n  types:\n  - Ingress\n---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  \
         name: clients-to-web\n  namespace: {NAMESPACE}\nspec:\n  order: 100\n  selector: app == 'web'\n  types:\n  - Ingress\n  \
         ingress:\n  - action: Allow\n    source:\n      selector: app == 'client'\n"
    )
}

/// # Errors
/// When a denied pair gets through, an allowed or unselected one does not, or the established flow stops.
pub fn enforce(scene: &mut Scene) -> Result<String> {
    let probes = probe::full_mesh(&scene.endpoints, &[Kind::Icmp, Kind::Tcp]);
    let (from, to) = (scene.endpoint("other-3")?, scene.endpoint("web-1")?);
    let mut flow = Flow::open(from, to)?;
    let lab = scene.lab()?;
    let node = &lab.state.topology.nodes.first().context("a lab has a node")?.name;
    let (ctl, file) = (
        lab.ctl(node)?,
        crate::state::dir(&lab.state.lab).join("policies.yaml"),
    );
    if !scene.options.sabotage {
        ctl.file("apply", &file, &policies())?;
    }
    let applied = Instant::now();
    let seen = wait_for("the policies are enforced", ENFORCE_TIMEOUT, || {
        as_expected(probe::run(&probes)?)
    })?;
    let enforced = applied.elapsed();
    flow.exchange()
        .context("other-3 -> web-1, established before the policy")?;
    ctl.file("delete", &file, &policies())?;
    let all = wait_for("the policies are gone", ENFORCE_TIMEOUT, || {
        all_echo(probe::run(&probes)?)
    })?;
    flow.exchange()
        .context("other-3 -> web-1, established before the policy was removed")?;
    let denied = seen.iter().filter(|s| !allowed(&s.probe)).count();
    Ok(format!(
        "{denied} probes denied, {} went on in the same pass ({:.1} s with timeouts), the established flow too; removed: {} of {} \
         answered",
        seen.len() - denied,
        enforced.as_secs_f64(),
        all.len(),
        probes.len()
    ))
}

/// What the policies say, from the names of the pods: `web-*` are selected, `client-*` may reach them.
fn allowed(probe: &Probe) -> bool {
    !probe.to.name.starts_with("web-") || probe.from.name.starts_with("client-")
}

fn as_expected(seen: Vec<Seen>) -> Result<Vec<Seen>> {
    let wrong: Vec<_> = seen
        .iter()
        .filter(|s| s.echo.is_ok() != allowed(&s.probe))
        .map(ToString::to_string)
        .collect();
    ensure!(
        wrong.is_empty(),
        "{} of {} verdicts wrong: {}",
        wrong.len(),
        seen.len(),
        wrong.iter().take(6).cloned().collect::<Vec<_>>().join("; ")
    );
    Ok(seen)
}
