//! `wss` with the bridge's own certificate, which a phone compares with what the bridge says inside the channel.

use std::sync::Arc;

use sessioncap::Link;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// The link of a session at another address.
async fn link_at(bridge: &Bridge, session: &SessionId, url: &str) -> Link {
    let url = sessioncap::AgentUrl::parse(url).unwrap();
    let identity = Identity { url, ..bridge.identity.clone() };
    // The desktop reaches the bridge as before; the code names the other address.
    let issuer =
        sessioncap::desktop::Issuer::new(identity.issuer.clone(), identity.agent, identity.url.clone());
    let mut desktop = Desktop::connect(&bridge.identity).await.unwrap();
    desktop.share_as(&issuer, session, &PairingTerms::default()).await.unwrap().pairing.link
}

#[tokio::test]
async fn a_phone_finds_the_bridges_certificate_to_be_the_one_that_the_bridge_states() {
    let bridge = start().await;
    let (_desktop, _, session) = bridge.with_session().await;
    let link = link_at(&bridge, &session, &bridge.wss()).await;
    let file = bridge.world.file("phone.json");
    let joined = acp::join(&link, &Label::new("phone").unwrap(), &file, acp::SEARCH, |_| {}).await.unwrap();
    let mut phone = joined.live;
    phone.initialize(|_| {}).await.unwrap();
    phone.leave().await;
    let mut phone = Acp::come_back(&file, acp::SEARCH).await.unwrap();
    phone.initialize(|_| {}).await.unwrap();
}

async fn start() -> Bridge {
    // A free port, for the address is part of the configuration.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (plain, secure) = (format!("ws://127.0.0.1:{port}"), format!("wss://127.0.0.1:{port}"));
    let proxied = "wss://127.0.0.2:{port}".replace("{port}", &port.to_string());
    let listen = format!("127.0.0.1:{port}");
    Bridge::start_with(&["--tls", "--listen", &listen, "--url", &plain, "--url", &secure, "--url", &proxied])
        .await
}

impl Bridge {
    fn wss(&self) -> String {
        format!("wss://127.0.0.1:{}", self.world.url.port())
    }
}

/// A man in the middle at 127.0.0.2, with a certificate of his own, who passes the bytes on.
async fn end_tls_before(bridge: &Bridge) {
    let port = bridge.world.url.port();
    let listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let clock = sessioncap_programs::clock::Clock::system().unwrap();
    let file = bridge.world.file("his-certificate.json");
    let names = ["127.0.0.2".to_owned()];
    let identity =
        sessioncap_programs::tls::ServerIdentity::open(&file, &names, clock.now().timestamp()).unwrap();
    let acceptor = Arc::new(identity.serving().unwrap().acceptor);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = Arc::clone(&acceptor);
            tokio::spawn(async move {
                let mut his = acceptor.accept(stream).await.unwrap();
                let mut bridge = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = copy_bidirectional(&mut his, &mut bridge).await;
            });
        }
    });
}

#[tokio::test]
async fn the_program_that_joins_compares_the_certificate_before_it_leaves() {
    let bridge = start().await;
    let (_desktop, _, session) = bridge.with_session().await;
    end_tls_before(&bridge).await;
    let his = format!("wss://127.0.0.2:{}", bridge.world.url.port());
    for (url, said) in [(bridge.wss(), "joined session"), (his, "not the agent's")] {
        let link = link_at(&bridge, &session, &url).await.to_https(&sessioncap::LinkHost::Agent).unwrap();
        let mut command = tokio::process::Command::new(program("companion"));
        command.arg("--state").arg(bridge.world.file(&format!("{}.json", said.len())));
        let joining = within("joining", command.args(["acp", "join", &link]).output()).await.unwrap();
        let heard = String::from_utf8_lossy(&joining.stderr);
        assert!(heard.contains(said), "{url}: {heard}");
        assert_eq!(joining.status.success(), said == "joined session", "{heard}");
    }
}

#[tokio::test]
async fn whoever_ends_tls_on_the_way_is_noticed_on_the_first_connection_and_on_a_later_one() {
    let bridge = start().await;
    let port = bridge.world.url.port();
    let (_desktop, _, session) = bridge.with_session().await;
    end_tls_before(&bridge).await;
    let link = link_at(&bridge, &session, &format!("wss://127.0.0.2:{port}")).await;
    let file = bridge.world.file("phone.json");
    // He can carry Noise, and that is all that he can do.
    let joined = acp::join(&link, &Label::new("phone").unwrap(), &file, acp::SEARCH, |_| {}).await.unwrap();
    let mut phone = joined.live;
    for _ in 0..2 {
        let noticed = phone.initialize(|_| {}).await.unwrap_err().to_string();
        assert!(noticed.contains("not the agent's"), "{noticed}");
        phone = Acp::come_back(&file, acp::SEARCH).await.unwrap();
    }
}
