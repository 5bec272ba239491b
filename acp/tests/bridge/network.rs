//! A desk, a phone and somebody else, each in a network of its own: the phone finds its bridge.

use super::net::{Host, Net};
use super::*;
use tokio::process::Command;
use world::Running;

/// A desktop that has started its bridge at the port that phones know.
struct Desk<'a> {
    host: &'a Host,
    world: std::path::PathBuf,
    bridge: Running,
    key: String,
}

const PORT: u16 = 9099;

impl<'a> Desk<'a> {
    async fn start(host: &'a Host) -> Self {
        let world = new_directory();
        let keygen = world::dd_client(&world.join("desktop")).arg("keygen").output().await.unwrap();
        let device = String::from_utf8(keygen.stdout).unwrap();
        let mut command = host.command(Path::new(BRIDGE));
        command.arg("--command").arg(program("sample_agent")).arg("--state").arg(world.join("bridge"));
        command.args(["--enroll", device.trim(), "--listen", "0.0.0.0:9099", "--advertise", "desk"]);
        let urls = [format!("ws://{}:{PORT}", host.address), format!("ws://127.0.0.1:{PORT}")];
        command.args(["--url", &urls[0], "--url", &urls[1]]);
        let bridge = Running::start(command);
        let line: Value = serde_json::from_str(&bridge.stdout.until("\n").await).unwrap();
        let key = line["agent_key"].as_str().unwrap().to_owned();
        Self { host, world, bridge, key }
    }

    fn dd(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = self.host.command(&program("dd_client"));
        command.arg("--profile").arg(self.world.join("desktop"));
        command.args(["--agent", url, "--agent-key", &self.key]).args(arguments);
        command
    }

    /// An editor with a session, and the bridge's id of it.
    async fn editor(&self) -> (Running, SessionId) {
        let url = format!("ws://127.0.0.1:{PORT}");
        let mut editor = Running::start(self.dd(&url, &["acp"]));
        let initialize =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": 1 } });
        editor.type_in(&format!("{initialize}\n")).await;
        editor.stdout.until("agentCapabilities").await;
        let new = json!({ "jsonrpc": "2.0", "id": 2, "method": "session/new", "params": { "cwd": "/", "mcpServers": [] } });
        editor.type_in(&format!("{new}\n")).await;
        editor.stdout.until("sessionId").await;
        let listed = self.dd(&url, &["session", "list", "--json"]).output().await.unwrap();
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        (editor, SessionId::new(listed[0]["id"].as_str().unwrap()).unwrap())
    }

    /// A code whose link names this address.
    async fn link(&self, session: &SessionId, address: &str) -> (Running, String) {
        let url = format!("ws://{address}:{PORT}");
        let pairing = Running::start(self.dd(&url, &["session", "pair-mobile", session.as_str(), "--json"]));
        let line = pairing.stdout.until("\n").await;
        let offered: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        (pairing, offered["link"].as_str().unwrap().to_owned())
    }

    fn companion(&self, at: &Host, file: &str, arguments: &[&str]) -> Running {
        let mut command = at.command(&program("companion"));
        command
            .arg("--state")
            .arg(self.world.join(file))
            .arg("acp")
            .args(["--search", "600"])
            .args(arguments);
        Running::start(command)
    }

    async fn prompts(&self, at: &Host, file: &str) {
        let mut companion = self.companion(at, file, &["prompt", "echo from the bridge"]);
        companion.stdout.until("from the bridge").await;
        companion.stdout.until("the turn has ended: end_turn").await;
        assert_eq!(companion.exit_code().await, 0);
    }
}

#[tokio::test]
async fn a_phone_finds_its_bridge_whatever_address_it_has_and_whoever_else_says_to_be_it() {
    let Some(net) = Net::new(3) else { return };
    let [desk, phone, liar] = [&net.hosts[0], &net.hosts[1], &net.hosts[2]];
    let desk = Desk::start(desk).await;
    let (_editor, session) = desk.editor().await;
    let (_pairing, link) = desk.link(&session, &desk.host.address).await;
    let mut joining = desk.companion(phone, "phone.json", &["join", &link]);
    joining.stderr.until("joined session").await;
    assert_eq!(joining.exit_code().await, 0);
    desk.prompts(phone, "phone.json").await;
    let discovered = desk.companion(phone, "phone.json", &["discover", "--follow"]);
    discovered.stdout.until("paired with this phone").await;

    // The desk gets another address; nobody tells the phone, but the network does.
    assert!(desk.host.ip(&format!("address del {}/24 dev lan0", desk.host.address)));
    assert!(desk.host.ip("address add 10.9.0.77/24 dev lan0"));
    // Somebody else says to be the same, by name and by the hash of the key, and answers as something else does.
    let key = desk.key.parse().unwrap();
    let lying = liar.advertise("desk", &key, &["--listen"]);
    lying.stdout.until("\n").await;
    let browsing = phone.browse(&[]);
    browsing.stdout.until("10.9.0.77:9099").await;
    browsing.stdout.until(&liar.address).await;
    // It says so over and over, and so is the last that the phone has heard.
    let insisting = async {
        loop {
            let mut lying = liar.advertise("desk", &key, &[]);
            lying.stdout.until("announced").await;
            lying.child.kill().await.unwrap();
        }
    };
    tokio::select! {
        () = insisting => {}
        () = desk.prompts(phone, "phone.json") => {}
    }
    assert!(desk.bridge.stderr.get().contains("a phone is attached"));
}

#[tokio::test]
async fn a_simulator_reaches_the_bridge_at_loopback() {
    let Some(net) = Net::new(1) else { return };
    let desk = Desk::start(&net.hosts[0]).await;
    let (_editor, session) = desk.editor().await;
    let (_pairing, link) = desk.link(&session, "127.0.0.1").await;
    let mut joining = desk.companion(desk.host, "simulator.json", &["join", &link]);
    joining.stderr.until("joined session").await;
    assert_eq!(joining.exit_code().await, 0);
    desk.prompts(desk.host, "simulator.json").await;
}
