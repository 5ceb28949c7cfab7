//! Namespaces of root's that are attached without addresses, for clients that ask for theirs.

use std::process::{Command, Stdio};

use crate::harness::{Kept, Netns, World, eventually};

/// A namespace whose `eth0` is up, and is an endpoint that nobody has set up.
pub struct Bare {
    pub netns: Netns,
    pub name: &'static str,
}

impl Bare {
    /// Attaches one to a network, by this name.
    pub fn new(world: &World, name: &'static str, network: &str) -> Bare {
        let netns = Netns::new(name);
        netns.shell("ip link set lo up").ok();
        let configure = "--driver-opt portolan.configure=off";
        world.ok(&format!(
            "attach --netns {} --name {name} --network {network} {configure}",
            netns.path()
        ));
        assert_eq!(netns.shell("ip -o addr show dev eth0 scope global").ok(), "", "it comes bare");
        netns.shell("ip link set eth0 up").ok();
        Bare { netns, name }
    }

    /// Waits until an interface in it has the link-local address that its kernel makes.
    pub fn has_link_local(&self, device: &str) {
        eventually("the kernel has its link-local address", 20, || {
            let shown = self.netns.shell(&format!("ip -6 -o addr show dev {device} scope link"));
            let shown = shown.ok();
            shown.contains("fe80::") && !shown.contains("tentative")
        });
    }

    /// A client that stays, with these words.
    pub fn client(&self, line: &str) -> Kept {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.netns.name()]).args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Kept::spawn(command)
    }

    /// Its way to the gateway, by name and by echo.
    pub fn reaches_the_gateway(&self, gateway: &str) {
        self.netns.shell(&format!("ping -q -c 1 -W 2 {gateway}")).ok();
        self.netns.shell(&format!("arping -q -c 1 -w 2 -I eth0 {gateway}")).ok();
    }
}

/// The rows of `leases` of a network.
pub fn leases(world: &World, network: &str) -> Vec<serde_json::Value> {
    world.json(&format!("leases {network} --format json")).as_array().unwrap().clone()
}
