//! A host with a world outside it: namespaces of root's, made for one test, where the daemon runs in the host's.
//!
//! ```text
//! guests - portolan - HOST 198.51.100.1 -- 198.51.100.2 ROUTER 203.0.113.1 -- 203.0.113.2 OUTSIDE
//!                     2001:db8:1::1        2001:db8:1::2       2001:db8:2::1  2001:db8:2::2
//! ```

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::{Kept, Netns, Who, World, eventually, root, said};

/// The host's addresses.
pub const HOST: &str = "198.51.100.1";
pub const HOST6: &str = "2001:db8:1::1";
/// The near side of the router.
pub const ROUTER: &str = "198.51.100.2";
pub const ROUTER6: &str = "2001:db8:1::2";
/// Who lives behind it.
pub const OUTSIDE: &str = "203.0.113.2";
pub const OUTSIDE6: &str = "2001:db8:2::2";
/// An address of nobody in the outside's network.
pub const NOBODY: &str = "203.0.113.99";

/// Where [`Place::serve`] listens, unless told otherwise.
pub const PORT: u16 = 7000;

/// Both ends of conversations: see the head of the file.
pub const TALK: &str = include_str!("talk.py");

/// A host, what lies outside it, and a daemon of an ordinary user on the host. With root's `ip netns` names.
pub struct Place {
    pub world: World,
    served: Vec<Kept>,
    pub host: Netns,
    pub router: Netns,
    pub outside: Netns,
    /// The host's resolv.conf as its processes see it, deleted with the place.
    etc: PathBuf,
}

impl Place {
    /// A place whose daemon runs as usual.
    pub fn new() -> Place {
        Place::behind(&[])
    }

    /// A place whose daemon and commands run behind the words of `wrapper`, in the host's namespace.
    pub fn behind(wrapper: &[&str]) -> Place {
        let mut place = Place::without_daemon(wrapper);
        place.world.start();
        place
    }

    /// A place where no daemon runs yet.
    pub fn without_daemon(wrapper: &[&str]) -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [host, router, outside] =
            ["host", "router", "outside"].map(|word| Netns::new(&format!("{word}{number}")));
        for netns in [&host, &router, &outside] {
            root(&format!("ip -n {} link set lo up", netns.name())).ok();
        }
        connect(&host, "up0", HOST, HOST6, &router, "near0", ROUTER, ROUTER6);
        connect(
            &router,
            "far0",
            "203.0.113.1",
            "2001:db8:2::1",
            &outside,
            "out0",
            OUTSIDE,
            OUTSIDE6,
        );
        router.shell("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1").ok();
        // An address of nobody is told at once, not after the second's wait that a neighbour is given.
        router.shell("ip route add unreachable 203.0.113.99").ok();
        host.shell(&format!(
            "ip route add default via {ROUTER} && ip -6 route add default via {ROUTER6}"
        ))
        .ok();
        outside
            .shell(
                "ip route add default via 203.0.113.1 && ip -6 route add default via 2001:db8:2::1",
            )
            .ok();
        // A device may be known as down for a second after it is up, and IPv6 has no way over it until then.
        for (from, to) in [(&outside, HOST), (&outside, HOST6), (&host, OUTSIDE), (&host, OUTSIDE6)]
        {
            eventually("the way is open", 20, || {
                from.shell(&format!("ping -n -q -c 1 -W 1 {to}")).code == 0
            });
        }
        let etc = PathBuf::from("/etc/netns").join(host.name());
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("resolv.conf"), "").unwrap();
        let mut words = vec!["ip", "netns", "exec", host.name()];
        words.extend(wrapper);
        let world = World::without_daemon(Who::User, &words);
        Place { world, served: Vec::new(), host, router, outside, etc }
    }

    /// Writes the host's resolv.conf, in place as what is mounted over it stays the same file.
    pub fn resolv_conf(&self, text: &str) {
        fs::write(self.etc.join("resolv.conf"), text).unwrap();
    }

    /// Lets the host's users have ping sockets.
    pub fn allow_pings(&self) {
        self.host.shell("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range").ok();
    }

    /// Python in a namespace of the place, as root, until the place goes; it prints to a file, whose path this gives.
    pub fn python(&mut self, netns: &str, name: &str, code: &str, words: &[&str]) -> PathBuf {
        let path = self.world.path(name);
        let log = fs::File::create(&path).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns, "python3", "-c", code]).args(words);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.served.push(Kept::spawn(command));
        path
    }

    /// Serves these ports in a namespace of the place: the outside's, unless told otherwise.
    pub fn serve_in(&mut self, netns: &str, ports: &[u16]) {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let name = format!("served-{}", self.served.len());
        let words: Vec<&str> =
            ["serve"].into_iter().chain(ports.iter().map(String::as_str)).collect();
        let log = self.python(netns, &name, TALK, &words);
        eventually("a server is ready", 20, || {
            fs::read_to_string(&log).is_ok_and(|text| text.starts_with("ready"))
        });
    }

    /// Serves [`PORT`] outside.
    pub fn serve(&mut self) {
        let outside = self.outside.name().to_string();
        self.serve_in(&outside, &[PORT]);
    }

    /// Ends all that was started by [`Place::python`] and [`Place::serve_in`].
    pub fn hush(&mut self) {
        self.served.clear();
    }

    /// What a verb of the conversation prints in a namespace of the place.
    pub fn talk_in(&self, netns: &Netns, line: &str) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns.name(), "python3", "-c", TALK]);
        command.args(line.split_whitespace()).stdin(Stdio::null());
        said(command, CONVERSATION).ok()
    }

    /// What a verb of the conversation prints outside.
    pub fn talk_outside(&self, line: &str) -> String {
        self.talk_in(&self.outside, line)
    }

    /// What a verb of the conversation prints in a node.
    pub fn talk(&self, node: &str, line: &str) -> String {
        said(self.talking(node, line), CONVERSATION).ok()
    }

    /// A verb of the conversation in a node, not started yet.
    pub fn talking(&self, node: &str, line: &str) -> Command {
        let words = ["exec", node, "--", "python3", "-c", TALK];
        self.world.command(words.into_iter().chain(line.split_whitespace()))
    }

    /// A node that serves these ports (divided by spaces), made with these options of `run`; it is ready when this returns.
    pub fn server(&self, name: &str, options: &str, ports: &str) {
        let mut words = vec!["run", "-d", "--name", name];
        words.extend(options.split_whitespace());
        words.extend(["--", "python3", "-c", TALK, "serve"]);
        words.extend(ports.split_whitespace());
        self.world.portolan(words).ok();
        self.ready(name);
    }

    /// Waits until a node made by [`Place::server`] serves.
    pub fn ready(&self, name: &str) {
        eventually("the node serves", 20, || {
            self.world.ok(&format!("logs {name}")).contains("ready")
        });
    }

    /// How many frames of this network were dropped for this reason.
    pub fn drops(&self, network: &str, reason: &str) -> u64 {
        let rows = self.world.json(&format!("drops {network} --format json"));
        let rows = rows.as_array().unwrap().iter().filter(|row| row["Reason"] == reason);
        rows.map(|row| row["Frames"].as_u64().unwrap()).sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.etc);
    }
}

/// Seconds for one conversation: the largest transfers, by a debug build on a busy machine.
const CONVERSATION: u64 = 300;

/// Joins two namespaces by a cable with addresses at both ends.
#[allow(clippy::too_many_arguments, reason = "two ends of four words each")]
fn connect(
    a: &Netns,
    end: &str,
    v4: &str,
    v6: &str,
    b: &Netns,
    other: &str,
    other4: &str,
    other6: &str,
) {
    root(&format!(
        "ip -n {} link add {end} type veth peer name {other} netns {}",
        a.name(),
        b.name()
    ))
    .ok();
    for (netns, end, v4, v6) in [(a, end, v4, v6), (b, other, other4, other6)] {
        let name = netns.name();
        root(&format!("ip -n {name} addr add {v4}/24 dev {end}")).ok();
        root(&format!("ip -n {name} addr add {v6}/64 dev {end} nodad")).ok();
        root(&format!("ip -n {name} link set {end} up")).ok();
    }
}

/// What `connect` of the conversation said: the verdict, and milliseconds.
pub fn verdict(text: &str) -> (&str, u64) {
    let (verdict, millis) = text.split_once(' ').unwrap();
    (verdict, millis.parse().unwrap())
}

/// Both halves of what `who` said: whom the server saw, and who asked.
pub fn seen(text: &str) -> (&str, &str) {
    text.split_once(" is ").unwrap_or_else(|| panic!("{text}"))
}

/// Both halves of what `sink` and `source` said are the same, and so many MiB.
pub fn assert_whole(text: &str, mebibytes: u64) {
    let words: Vec<&str> = text.split(' ').collect();
    assert_eq!(words.len(), 4, "{text}");
    assert_eq!(words[..2], words[2..], "{text}");
    assert_eq!(words[0], (mebibytes << 20).to_string(), "{text}");
}
