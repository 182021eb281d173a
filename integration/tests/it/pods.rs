//! Pods through the real plugin, as runtimes treat them.

use crate::common::{Name, nodes};
use std::net::{IpAddr, Ipv4Addr};
use twill_lab::cni;
use twill_lab::demo::detach;
use twill_lab::pods::PodSpec;

#[test]
fn a_pod_gets_the_address_that_it_asks_for_and_del_works_as_often_as_a_runtime_likes() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let wanted = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 9));
    let web: twill_lab::state::PodName = "shop/web".parse().unwrap();
    let result = lab.add_pod(&PodSpec::new(web.clone(), "n1").ip(wanted)).unwrap();
    assert_eq!(cni::addresses(&result).unwrap(), [wanted]);
    assert_eq!(result["cniVersion"], "1.0.0");
    let pod = lab.state.pod(&web).unwrap().clone();
    for with_netns in [true, false, false] {
        lab.detach_pod(&pod, with_netns).unwrap();
    }
    twill_lab::run::wait_for("no trace", std::time::Duration::from_secs(30), || {
        detach::no_trace(lab, "n1", &[&pod])
    })
    .unwrap();
    lab.forget_pod(&pod).unwrap();
    // The name is free again, and so is the address.
    lab.add_pod(&PodSpec::new(web.clone(), "n2").ip(wanted)).unwrap();
    lab.delete_pod(&web).unwrap();
}

#[test]
fn del_of_a_pod_that_never_was_is_done() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let pod = lab
        .make_pod(&PodSpec::new("demo/ghost".parse().unwrap(), "n1"))
        .unwrap();
    lab.detach_pod(&pod, true).unwrap();
    lab.detach_pod(&pod, false).unwrap();
    lab.forget_pod(&pod).unwrap();
}
