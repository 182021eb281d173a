//! Settings of the controllers.

use std::collections::BTreeSet;

use super::{Check, text};
use crate::resources::KubeControllersConfigurationSpec;
use crate::resources::kubecontrollersconfiguration::HostEndpointTemplate;

pub(super) fn check(check: &mut Check, spec: &KubeControllersConfigurationSpec) {
    check.one_of(
        "logSeverityScreen",
        &spec.log_severity_screen,
        &["Debug", "Info", "Warning", "Error", "Fatal"],
    );
    let node = spec.controllers.node.as_ref();
    let Some(auto) = node.and_then(|node| node.host_endpoint.as_ref()) else {
        return;
    };
    let mut names = BTreeSet::new();
    let twice = auto.templates.iter().find(|t| !names.insert(&t.generate_name));
    check.field("controllers", |check| {
        check.field("node", |check| {
            check.field("hostEndpoint", |check| {
                if let Some(twice) = twice {
                    check.wrong_field("templates", format!("{:?} stands twice", twice.generate_name));
                }
                check.each("templates", &auto.templates, template);
            });
        });
    });
}

/// Calico looks at no more than this.
fn template(check: &mut Check, template: &HostEndpointTemplate) {
    let length = template.generate_name.len();
    check.refuse(length == 0, "generateName", "must be set");
    check.refuse(
        length > text::NAME_BYTES_MAX,
        "generateName",
        "has more than 253 bytes",
    );
    check.refuse(
        template.interface_cidrs.is_empty() && template.interface_pattern.is_empty(),
        "interfaceCIDRs",
        "must be set where interfacePattern is not",
    );
}
