//! Two gateways with one agent key, behind one address: `cargo run -p sessioncap-postgres --example fleet`.
//!
//! Starts a PostgreSQL of its own, a server with one session, two gateways that share both, and a balancer in front.
//! A phone does not notice which gateway serves it; a gateway that cannot reach the database lets its streams wait;
//! a revocation at one gateway ends the stream at the other. Every step checks what it shows.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/scene/mod.rs"]
mod scene;

use std::collections::HashSet;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::OsRng;
use scene::Server;
use scene::proxy::Proxy;
use sessioncap::agent::{Admission, AgentContext, Gate, GateConfig, PermitError, Presence};
use sessioncap::desktop::{Issuer, PairingTerms};
use sessioncap::noise::{Channel, Responder};
use sessioncap::phone::{PhoneError, Redeemed};
use sessioncap::{
    AgentSecretKey, AgentUrl, CredentialBytes, DevicePublicKey, DeviceSecretKey, EndCode, Frame,
    HolderSecretKey, IssuerSecretKey, Label, NodeId, Now, Op, OpSet, SessionId, Status, SystemClock,
};
use sessioncap_postgres::{Following, PostgresLedger};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// X: how long a gateway permits without a read of the log.
const LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let Some(server) = Server::primary() else { return ExitCode::SUCCESS };
    match run(&server) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("it went wrong: {error}");
            ExitCode::FAILURE
        }
    }
}

fn step(text: &str) {
    println!("• {text}");
}

fn check(is_so: bool, what: &str) -> Outcome<()> {
    if is_so { Ok(()) } else { Err(format!("not so: {what}").into()) }
}

fn clock() -> Now {
    // This program runs where there is such a clock, or it ends before its first step.
    SystemClock::new()
        .map_or(Now::new(sessioncap::Timestamp::EPOCH.to_date(), Default::default()), |clock| clock.now())
}

// --- the session, which belongs to neither gateway ---

/// Serves one session to every gateway that connects: what one types, all see.
fn serve_session(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let viewers: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(typing) = stream.try_clone() else { continue };
            viewers.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
            let viewers = Arc::clone(&viewers);
            thread::spawn(move || {
                for line in BufReader::new(typing).lines().map_while(Result::ok) {
                    let mut viewers = viewers.lock().unwrap_or_else(PoisonError::into_inner);
                    viewers.retain_mut(|viewer| writeln!(viewer, "you said: {line}").is_ok());
                }
            });
        }
    });
    Ok(())
}

// --- a gateway ---

/// What both gateways know.
#[derive(Clone)]
struct Context {
    devices: HashSet<DevicePublicKey>,
    session: SessionId,
}

impl AgentContext for Context {
    fn device(&self, device: &DevicePublicKey) -> Presence {
        self.devices.contains(device).into()
    }

    fn session(&self, session: &SessionId) -> Presence {
        (*session == self.session).into()
    }

    fn may_share(&self, _: &DevicePublicKey, _: &SessionId) -> bool {
        true
    }
}

struct Gateway {
    gate: Gate,
    address: SocketAddr,
    proxy: Proxy,
    _following: Following,
}

impl Gateway {
    fn start(
        server: &Server,
        number: u32,
        key: &AgentSecretKey,
        url: &AgentUrl,
        context: Context,
        sessions: PathBuf,
    ) -> Outcome<Self> {
        let proxy = Proxy::new(&server.directory.0);
        // A fleet has a standby: see docs/FLEET.md for what is given up without one.
        let options = server.options_at(proxy.directory()).without_standby().with_limit(LIMIT)?;
        let ledger = PostgresLedger::open(options, &key.public(), NodeId::new(number), clock())?;
        let config = ledger.configure(GateConfig::new(key.public(), [url.clone()])?);
        let gate = Gate::open(config, ledger.clone(), context, clock())?;
        let following = ledger.feed().follow(gate.clone(), clock)?;
        let settled = gate.clone();
        thread::spawn(move || {
            loop {
                if settled.settle(clock()).is_err() && settled.is_poisoned() {
                    let _ = settled.reopen(ledger.clone(), clock());
                }
                thread::sleep(Duration::from_millis(500));
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (serving, key) = (gate.clone(), Arc::new(key.clone()));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (gate, key, sessions) = (serving.clone(), Arc::clone(&key), sessions.clone());
                thread::spawn(move || serve_phone(&gate, &key, &sessions, stream));
            }
        });
        Ok(Self { gate, address, proxy, _following: following })
    }
}

fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).min(1 << 16);
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).unwrap_or(0);
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(message)
}

/// Admits a phone, and carries the session's lines under permits until the connection ends.
fn serve_phone(gate: &Gate, key: &AgentSecretKey, sessions: &Path, mut stream: TcpStream) -> Outcome<()> {
    let received = Responder::read(key, &read_message(&mut stream)?, &mut OsRng)?;
    let pending = match gate.admit(received, clock(), &mut OsRng) {
        Admission::Admitted { message, pending } => {
            write_message(&mut stream, &message)?;
            pending
        }
        Admission::Refused { message, .. } => {
            message.map_or(Ok(()), |message| write_message(&mut stream, &message))?;
            return Ok(());
        }
        _ => return Ok(()),
    };
    let first = read_message(&mut stream)?;
    let channel = pending.activate(&first, clock())?;
    let session = UnixStream::connect(sessions)?;
    session.set_read_timeout(Some(Duration::from_millis(20)))?;
    let (mut sender, mut receiver) = channel.split();
    let (mut typing, mut phone) = (session.try_clone()?, stream.try_clone()?);
    let input = thread::spawn(move || {
        // A frame that is stale waits, and is asked for again.
        let mut take = |receiver: &mut sessioncap::agent::GuardedReceiver| loop {
            match receiver.try_receive(Op::SendInput, clock(), |line| typing.write_all(line)) {
                Err(PermitError::Stale) => thread::sleep(Duration::from_millis(10)),
                Err(PermitError::Over(_)) => return false,
                Ok(_) | Err(PermitError::Refused(_)) => return true,
            }
        };
        let _ = receiver.first();
        while take(&mut receiver) {
            let Ok(frame) = read_message(&mut phone) else { break };
            if matches!(receiver.open(&frame, clock()), Ok(Frame::End(_)) | Err(PermitError::Over(_))) {
                break;
            }
        }
        let _ = typing.shutdown(Shutdown::Both);
    });
    let mut lines = BufReader::new(session);
    let mut line = Vec::new();
    let code = loop {
        let read = lines.read_until(b'\n', &mut line);
        let sent = match read {
            Ok(0) => break EndCode::CLOSED,
            Ok(_) => sender.try_send(Op::StreamOutput, &line, clock()),
            Err(_) => sender.check(clock()).map(|()| Vec::new()),
        };
        match sent {
            Ok(frame) if frame.is_empty() => {}
            Ok(frame) => {
                line.clear();
                write_message(&mut stream, &frame)?;
            }
            Err(PermitError::Stale) => thread::sleep(Duration::from_millis(10)),
            Err(PermitError::Over(denial)) => break denial.end_code(),
            Err(PermitError::Refused(_)) => line.clear(),
        }
    };
    if let Some(end) = sender.end(code) {
        write_message(&mut stream, &end)?;
    }
    let _ = stream.shutdown(Shutdown::Both);
    let _ = input.join();
    Ok(())
}

// --- the balancer ---

/// Gives each connection to the next gateway in turn, and knows nothing else of them.
struct Balancer {
    address: SocketAddr,
    next: Arc<AtomicUsize>,
}

impl Balancer {
    fn start(gateways: [SocketAddr; 2]) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let next = Arc::new(AtomicUsize::new(0));
        let turn = Arc::clone(&next);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let at = turn.fetch_add(1, Ordering::SeqCst) % 2;
                let Some(server) = gateways.get(at).and_then(|to| TcpStream::connect(to).ok()) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { continue };
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Ok(Self { address, next })
    }

    /// Which gateway the latest connection was given to.
    fn latest(&self) -> usize {
        self.next.load(Ordering::SeqCst).wrapping_sub(1) % 2
    }
}

// --- a phone ---

struct Phone {
    stream: TcpStream,
    channel: Channel,
}

impl Phone {
    fn attach(
        to: SocketAddr,
        agent: &AgentSecretKey,
        holder: &HolderSecretKey,
        credential: &CredentialBytes,
    ) -> Outcome<Result<Self, PhoneError>> {
        let asking =
            sessioncap::phone::attach(&agent.public(), holder, credential, OpSet::EMPTY, &mut OsRng)?;
        let mut stream = TcpStream::connect(to)?;
        write_message(&mut stream, &asking.message)?;
        match asking.next.finish(&read_message(&mut stream)?) {
            Ok(attached) => Ok(Ok(Self { stream, channel: attached.channel })),
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn say(&mut self, line: &str) -> Outcome<()> {
        let frame = self.channel.seal(&Frame::Data(format!("{line}\n").into_bytes()).to_bytes())?;
        Ok(write_message(&mut self.stream, &frame)?)
    }

    /// The next line of the session, or the code of the connection's end.
    fn hear(&mut self, patience: Duration) -> Outcome<Result<String, EndCode>> {
        self.stream.set_read_timeout(Some(patience))?;
        let frame = Frame::from_bytes(&self.channel.open(&read_message(&mut self.stream)?)?)?;
        match frame {
            Frame::Data(line) => Ok(Ok(String::from_utf8_lossy(&line).trim().to_owned())),
            Frame::End(code) => Ok(Err(code)),
            _ => Err("another frame".into()),
        }
    }

    fn say_and_hear(&mut self, line: &str) -> Outcome<()> {
        self.say(line)?;
        let heard = self.hear(Duration::from_secs(30))?;
        check(heard.as_deref() == Ok(&format!("you said: {line}")), &format!("{line}: {heard:?}"))
    }
}

fn run(server: &Server) -> Outcome<()> {
    server.migrate();
    let key = AgentSecretKey::generate(&mut OsRng);
    let url: AgentUrl = "wss://fleet.example".parse()?;
    let device = DeviceSecretKey::generate(&mut OsRng).public();
    let session: SessionId = "demo".parse()?;
    let sessions = server.directory.0.join("sessions");
    serve_session(&sessions)?;
    let context = Context { devices: [device].into(), session: session.clone() };
    let start = |number| Gateway::start(server, number, &key, &url, context.clone(), sessions.clone());
    let gateways = [start(1)?, start(2)?];
    let [one, two] = &gateways;
    let balancer = Balancer::start([one.address, two.address])?;
    step("two gateways with one agent key, one PostgreSQL, and a server with the session `demo`");

    let issuer = Issuer::new(IssuerSecretKey::generate(&mut OsRng), key.public(), url.clone());
    let channel = [7; 32];
    one.gate.register_issuer(&device, &channel, &issuer.registration(&device, &channel), clock())?;
    let pairing = issuer.pair(session, &PairingTerms::default(), clock().timestamp(), &mut OsRng)?;
    one.gate.offer(&device, &pairing.offer, clock())?;
    step("the desktop has shared the session at gateway 1");

    let holder = HolderSecretKey::generate(&mut OsRng);
    let asking = sessioncap::phone::redeem(&pairing.link, &holder, Label::new("phone")?, &mut OsRng)?;
    let mut stream = TcpStream::connect(balancer.address)?;
    write_message(&mut stream, &asking.message)?;
    let Redeemed::Attached { credential, attached } = asking.next.finish(&read_message(&mut stream)?)? else {
        return Err("told to wait".into());
    };
    let mut phone = Phone { stream, channel: attached.channel };
    // Its first frame makes the connection live.
    phone.say_and_hear("hello")?;
    let first = balancer.latest();
    step(&format!("a phone has redeemed the code, served by gateway {}", first + 1));

    phone.stream.shutdown(Shutdown::Both)?;
    let mut phone = Phone::attach(balancer.address, &key, &holder, &credential)??;
    phone.say_and_hear("still there?")?;
    let serving = balancer.latest();
    check(serving != first, "the balancer gave it to the other gateway")?;
    step(&format!("it came back, is served by gateway {}, and the session went on", serving + 1));

    let (here, other) = if serving == 0 { (one, two) } else { (two, one) };
    here.proxy.freeze(true);
    scene::until("its streams wait", || here.gate.health(clock()).streams_paused);
    phone.say("in the dark")?;
    check(phone.hear(Duration::from_millis(300)).is_err(), "nothing passes")?;
    step(&format!("gateway {} cannot reach the database: within {LIMIT:?} its streams wait", serving + 1));
    here.proxy.freeze(false);
    let heard = phone.hear(Duration::from_secs(30))?;
    check(heard.as_deref() == Ok("you said: in the dark"), &format!("{heard:?}"))?;
    step("it can again: what waited has arrived");

    let begun = Instant::now();
    other.gate.revoke_credential(&pairing.credential, clock())?;
    let took = begun.elapsed();
    let ended = phone.hear(Duration::from_secs(30))?;
    check(ended == Err(EndCode::from(Status::Revoked)), &format!("{ended:?}"))?;
    step(&format!("revoked at the other gateway in {} ms: the stream here has ended", took.as_millis()));
    for gateway in &gateways {
        let refused = Phone::attach(gateway.address, &key, &holder, &credential)?.err();
        check(refused == Some(PhoneError::Refused(Status::Revoked)), &format!("{refused:?}"))?;
    }
    step("and neither gateway admits the phone again");
    Ok(())
}
