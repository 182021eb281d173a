//! A node that goes to Calico and comes back, while its pods talk.

use twill_lab::calico::node::{Bird, change_hands};

use crate::common::{Name, pods};

#[test]
fn a_node_is_handed_to_calico_and_taken_over_again_while_its_pods_talk() {
    let name = Name::new();
    let mut scene = pods(&name);
    let said = change_hands(&mut scene, &Bird::Debian).unwrap();
    println!("{}", said.join("\n"));
}
