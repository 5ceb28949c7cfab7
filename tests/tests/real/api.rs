//! The API as a program finds it that knows nothing but the document it serves: every path is there, every answer is as it is
//! described, and what is no request is refused in the same words as everything else.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{World, eventually, is_alive};

/// An answer.
#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The value of a header.
    fn header(&self, name: &str) -> &str {
        let of = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        let line = self.head.lines().find(of).unwrap_or_else(|| panic!("{name}: {}", self.head));
        line.split_once(':').unwrap().1.trim()
    }
}

/// A connection of this process. The daemon is root's: that of an ordinary user cannot see of which namespace root's processes
/// are, and serves none of them.
fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(world.runtime().join("api.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends bytes, and reads what comes until the daemon hangs up.
fn exchange(world: &World, request: &[u8]) -> Answered {
    let mut stream = connect(world);
    // It may have refused before it has read everything.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Answered {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = bytes[end + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Answered { status, head, body }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.extend(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    whole
}

/// One request with a JSON body, if it has one.
fn ask(world: &World, method: &str, path: &str, body: Option<&Value>) -> Answered {
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: portolan\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(world, request.as_bytes())
}

/// The document, and what of it has been seen to be true.
struct Described {
    document: Value,
    served: BTreeSet<(String, String)>,
}

impl Described {
    fn of(world: &World) -> Described {
        let answer = ask(world, "GET", "/v1/openapi.json", None);
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        let document = answer.json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        Described { document, served: BTreeSet::new() }
    }

    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &Value)| {
            let methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
            let path = path.clone();
            methods.into_iter().map(move |method| (method.to_uppercase(), path.clone()))
        };
        paths.iter().flat_map(of).collect()
    }

    /// Holds an answer to what is said of it.
    fn check(&mut self, method: &str, template: &str, answer: &Answered) {
        let here = format!("{method} {template}: {answer:?}");
        let operation = &self.document["paths"][template][method.to_lowercase()];
        let said = &operation["responses"][answer.status.to_string()];
        assert!(said.is_object(), "an answer that is not described: {here}");
        if answer.status < 300 {
            self.served.insert((method.to_owned(), template.to_owned()));
        }
        let Some(contents) = said["content"].as_object() else { return };
        let kind = answer.header("content-type").split(';').next().unwrap();
        let content =
            contents.get(kind).unwrap_or_else(|| panic!("not of a kind described: {here}"));
        if kind == "application/json" {
            self.validate(&content["schema"], &answer.json(), &here);
        }
        if answer.status >= 400 {
            assert!(!answer.json()["message"].as_str().unwrap().contains('\n'), "{here}");
        }
    }

    fn validate(&self, schema: &Value, value: &Value, here: &str) {
        let mut whole = schema.clone();
        whole["components"] = self.document["components"].clone();
        let validator = jsonschema::draft202012::new(&whole).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(value)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{faults:?} in {here}");
    }
}

#[test]
fn every_answer_is_as_the_document_describes_it_and_every_path_of_it_is_served() {
    let world = World::root();
    let mut all = Described::of(&world);
    let network = json!({
        "Name": "app", "EnableIPv6": true, "Labels": {"a": "b"},
        "IPAM": {"Config": [{"Subnet": "10.70.0.0/24", "IPRange": "10.70.0.128/25",
            "AuxiliaryAddresses": {"x": "10.70.0.200"}}]},
    });
    let publish = json!({"Ports": ["127.0.0.1:0:80"]});
    let nodes = "/v1/nodes/{name}";
    let networks = "/v1/networks/{name}";
    let mut step =
        |expected: u16, method: &str, template: &str, path: &str, body: Option<Value>| {
            let answer = ask(&world, method, path, body.as_ref());
            assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
            all.check(method, template, &answer);
            answer
        };
    step(201, "POST", "/v1/networks", "/v1/networks", Some(network.clone()));
    step(409, "POST", "/v1/networks", "/v1/networks", Some(network));
    step(400, "POST", "/v1/networks", "/v1/networks", Some(json!({"Name": ""})));
    step(201, "POST", "/v1/networks", "/v1/networks", Some(json!({"Name": "spare"})));
    world.node("--name n1 --network app", "ping -c 3 10.70.0.1; exec sleep 1000");
    world.idle("--name n2 --network app --network bridge -p 127.0.0.1:0:8000");
    let foreign = world.foreign_namespace();
    world.ok(&format!("attach --pid {} --name foreign --network app", foreign.pid()));

    let of = |rest: &str| format!("{networks}{rest}");
    for path in
        ["/v1/info", "/v1/version", "/v1/networks", "/v1/nodes", "/v1/openapi.json", "/metrics"]
    {
        step(200, "GET", path, path, None);
    }
    step(200, "GET", "/v1/events", "/v1/events?since=0&until=1", None);
    step(400, "GET", "/v1/events", "/v1/events?since=soon", None);
    step(200, "GET", "/v1/nodes", "/v1/nodes?all=true", None);
    for rest in ["", "/fdb", "/groups", "/drops", "/flows", "/names", "/leases", "/stats"] {
        step(200, "GET", &of(rest), &format!("/v1/networks/app{rest}"), None);
        step(404, "GET", &of(rest), &format!("/v1/networks/nowhere{rest}"), None);
    }
    for rest in ["", "/port", "/stats"] {
        step(200, "GET", &format!("{nodes}{rest}"), &format!("/v1/nodes/n2{rest}"), None);
        step(404, "GET", &format!("{nodes}{rest}"), &format!("/v1/nodes/nobody{rest}"), None);
    }
    let frame =
        Some(json!({"Frame": "ff ff ff ff ff ff 02 00 00 00 00 01 88 b5 00 00", "From": "n1"}));
    step(200, "POST", &of("/explain"), "/v1/networks/app/explain", frame);
    let half = Some(json!({"Frame": "fff"}));
    step(400, "POST", &of("/explain"), "/v1/networks/app/explain", half);
    let join = json!({"Container": "n1", "EndpointConfig": {"Aliases": ["x"]}});
    step(200, "POST", &of("/connect"), "/v1/networks/spare/connect", Some(join.clone()));
    step(409, "POST", &of("/connect"), "/v1/networks/spare/connect", Some(join));
    let leave = json!({"Container": "n1"});
    step(200, "POST", &of("/disconnect"), "/v1/networks/spare/disconnect", Some(leave));
    let to = |name: &str| Some(json!({"Name": name}));
    step(200, "POST", "/v1/nodes/{name}/rename", "/v1/nodes/n1/rename", to("first"));
    step(409, "POST", "/v1/nodes/{name}/rename", "/v1/nodes/first/rename", to("n2"));
    step(200, "POST", "/v1/nodes/{name}/publish", "/v1/nodes/n2/publish", Some(publish));
    let wrong = Some(json!({"Ports": ["99999"]}));
    step(400, "POST", "/v1/nodes/{name}/publish", "/v1/nodes/n2/publish", wrong);
    let closed = Some(json!({"Ports": ["127.0.0.1:0:80"]}));
    step(200, "POST", "/v1/nodes/{name}/unpublish", "/v1/nodes/n2/unpublish", closed);
    step(200, "POST", "/v1/nodes/{name}/detach", "/v1/nodes/foreign/detach", None);
    step(409, "DELETE", networks, "/v1/networks/app", None);
    step(409, "DELETE", nodes, "/v1/nodes/n2", None);
    step(200, "POST", "/v1/nodes/{name}/stop", "/v1/nodes/first/stop?t=0", None);
    step(200, "DELETE", nodes, "/v1/nodes/first", None);
    step(404, "DELETE", "/v1/captures/{id}", "/v1/captures/77", None);
    captures(&world, &mut all);
    let mut step =
        |expected: u16, method: &str, template: &str, path: &str, body: Option<Value>| {
            let answer = ask(&world, method, path, body.as_ref());
            assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
            all.check(method, template, &answer);
        };
    let code = Some(json!({"ExitCode": 3}));
    step(200, "POST", "/v1/nodes/{name}/exited", "/v1/nodes/n2/exited", code);
    step(200, "DELETE", nodes, "/v1/nodes/n2?force=true", None);
    step(200, "DELETE", networks, "/v1/networks/app?force=true", None);
    step(200, "POST", "/v1/networks/prune", "/v1/networks/prune", Some(json!({"Labels": []})));

    let unseen: Vec<_> = all.operations().difference(&all.served).cloned().collect();
    assert_eq!(unseen, [], "described, and not held to it here");
}

/// A capture of each kind: it begins, is ended, and ends.
fn captures(world: &World, all: &mut Described) {
    for (template, path) in [
        ("/v1/networks/{name}/capture", "/v1/networks/app/capture"),
        ("/v1/nodes/{name}/capture", "/v1/nodes/n2/capture?snaplen=96"),
    ] {
        let mut stream = connect(world);
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = vec![0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        bytes.truncate(read);
        let begun = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let id = begun.lines().find_map(|line| line.strip_prefix("portolan-capture: "));
        let id = id.unwrap_or_else(|| panic!("{begun}")).trim().to_owned();
        let ended = ask(world, "DELETE", &format!("/v1/captures/{id}"), None);
        all.check("DELETE", "/v1/captures/{id}", &ended);
        stream.read_to_end(&mut bytes).unwrap();
        let answer = parse(&bytes);
        assert_eq!(answer.status, 200);
        all.check("GET", template, &answer);
        // A section header block in the byte order of the machine.
        assert_eq!(answer.body[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    }
}

#[test]
fn what_is_no_request_is_refused_with_one_line_and_the_daemon_goes_on() {
    let world = World::root();
    let (daemon, _) = world.pids();
    let post = |path: &str, kind: &str, body: &[u8]| {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        exchange(&world, &request)
    };
    let json = "Content-Type: application/json\r\n";
    let deep = [b"{\"Name\":".to_vec(), vec![b'['; 100_000]].concat();
    let labels = format!("{{\"Name\":\"a\",\"Labels\":{{\"x\":\"{}\"}}}}", "y".repeat(2 << 20));
    let many = format!(
        "{{\"Name\":\"a\",\"Labels\":{{{}\"z\":\"\"}}}}",
        (0..5000).map(|n| format!("\"l{n}\":\"\",")).collect::<String>()
    );
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        (json, b"".to_vec()),
        (json, b"{".to_vec()),
        (json, b"nonsense".to_vec()),
        (json, b"\xff\xfe{}".to_vec()),
        (json, b"{\"Name\":7}".to_vec()),
        (json, b"{\"Name\":null}".to_vec()),
        (json, b"[\"Name\"]".to_vec()),
        (json, b"{\"Name\":\"a\",\"Nmae\":\"b\"}".to_vec()),
        (json, b"{\"Name\":\"a\",\"Name\":\"b\"}".to_vec()),
        (json, b"{\"Name\":\"a\"} x".to_vec()),
        (json, b"{\"Name\":\"a\\u0000\"}".to_vec()),
        (json, b"{\"Name\":\"a\",\"IPAM\":{\"Config\":[{\"Subnet\":\"10.0.0.0/99\"}]}}".to_vec()),
        (json, b"{\"Name\":\"a\",\"EnableIPv6\":\"yes\"}".to_vec()),
        (json, deep),
        (json, labels.into_bytes()),
        (json, many.into_bytes()),
        ("", b"{\"Name\":\"a\"}".to_vec()),
        ("Content-Type: text/plain\r\n", b"{\"Name\":\"a\"}".to_vec()),
    ];
    for (kind, body) in bodies {
        let answer = post("/v1/networks", kind, &body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
        let said = answer.json();
        let fields: Vec<&String> = said.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["message"], "{shown}");
        let message = said["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains('\n'), "{shown}: {message}");
    }
    for (method, path, status) in [
        ("GET", "/v1/nowhere", 404),
        ("GET", "/", 404),
        ("PUT", "/v1/networks", 404),
        ("DELETE", "/v1/info", 404),
        ("GET", "/v1/networks/%ff%fe", 400),
        ("GET", "/v1/networks/..%2f..%2fetc", 404),
        ("DELETE", "/v1/nodes/x?force=perhaps", 400),
        ("DELETE", "/v1/captures/many", 400),
        ("POST", "/v1/nodes/x/stop?t=-1", 400),
        ("POST", "/v1/nodes/x/stop?t=99999999999999999999999", 400),
    ] {
        let answer = ask(&world, method, path, None);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.json()["message"].is_string(), "{method} {path}");
    }
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
        assert_eq!(exchange(&world, &[garbage, b"\r\n\r\n"].concat()).status, 400);
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200_000));
    assert!((400..500).contains(&exchange(&world, long.as_bytes()).status));
    assert_eq!(world.json("network ls --format json").as_array().unwrap().len(), 3);
    assert_eq!(world.pids().0, daemon, "the daemon went on");
    assert!(is_alive(daemon));
}

#[test]
fn metrics_are_such_as_prometheus_takes_and_tell_of_what_was_done() {
    let world = World::root();
    world.ok("network create app");
    world.idle("--name quiet --network app");
    let sent = world.once("--name loud --network app", "ping -c 5 -i 0.2 -W 2 quiet");
    assert_eq!(sent.code, 0, "{sent:?}");
    let page = ask(&world, "GET", "/metrics", None);
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(page.body).unwrap();
    let value = |start: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("{start} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert_eq!(value("portolan_networks "), 4.0);
    assert_eq!(value("portolan_nodes{state=\"running\"}"), 1.0);
    assert_eq!(value("portolan_build_info{"), 1.0);
    let quiet = "{network=\"app\",node=\"quiet\",interface=\"eth0\",direction=\"to_node\"}";
    assert!(value(&format!("portolan_port_frames_total{quiet}")) >= 5.0);
    assert!(value(&format!("portolan_port_bytes_total{quiet}")) >= 5.0 * 98.0);
    assert!(value("portolan_fdb_entries{network=\"app\"}") >= 1.0);
    assert!(value("portolan_start_time_seconds ") > 1.7e9);
    assert!(value("process_resident_memory_bytes ") > 1e6);

    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".into());
    let mut check = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{promtool}: {error} (Debian's package prometheus has it)"));
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}\n{text}", String::from_utf8_lossy(&said));

    // Its counters begin anew with the daemon, and the page says so.
    let (daemon, _) = world.pids();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    eventually("another daemon answers", 30, || {
        world.portolan(["ps"]).code == 0 && world.pids().0 != daemon
    });
    let text = String::from_utf8(ask(&world, "GET", "/metrics", None).body).unwrap();
    assert!(text.contains("\nportolan_restarts_total 1\n"), "{text}");
    assert!(text.contains("\nportolan_nodes{state=\"running\"} 1\n"), "{text}");
}
