//! The bridge's command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use sessioncap::{AgentUrl, DevicePublicKey, Label};
use sessioncap_programs::agent::cli::{Signals, read_keys};
use sessioncap_programs::agent::logging::Writer;
use sessioncap_programs::agent::{self, Config, Options};
use sessioncap_programs::clock::Clock;
use sessioncap_programs::discovery::{Advert, Advertisement, Interfaces, KeyHash};
use sessioncap_programs::files::make_private_directory;
use sessioncap_programs::problem::{Outcome, Problem};
use sessioncap_programs::transport;
use time::UtcOffset;

use crate::bridge::{Bridge, Run};
use crate::mux::Settings;
use crate::secure::Certificate;

/// A bridge between one agent of the Agent Client Protocol and its viewers: the desktop, which is an enrolled device,
/// and phones, each held to the one session and the operations of its credential.
///
/// Prints one line of JSON with its address and key once it listens; everything else goes to standard error, or to the
/// file of `--log`. SIGTERM and Ctrl-C end it, and the agent with it.
#[derive(Parser)]
#[command(name = "acp_bridge")]
pub struct Arguments {
    /// The agent: a program that speaks the Agent Client Protocol on standard input and output, and its arguments.
    #[arg(long, value_name = "COMMAND LINE")]
    command: String,
    /// Where the agent starts.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Let the agent read and write files through the desktop's client, which must serve that.
    #[arg(long)]
    client_files: bool,
    /// Let the agent run commands through the desktop's client, which must serve that.
    #[arg(long)]
    client_terminals: bool,
    /// How long a question of the agent waits while nobody is there who may answer it.
    #[arg(long, value_name = "SECONDS", default_value_t = Settings::UNATTENDED.as_secs())]
    unattended: u64,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9099", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// The directory of `noise.key`, `devices.json`, the certificate and what was shared.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Keep no record of what was shared: every pairing ends with the process.
    #[arg(long)]
    in_memory: bool,
    /// An address under which phones reach the bridge; may be repeated. A former one stays here as long as credentials
    /// name it.
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<AgentUrl>,
    /// A device's public key to enrol, or a file with one on each line; may be repeated.
    #[arg(long, value_name = "HEX|FILE")]
    enroll: Vec<String>,
    /// Serve TLS too, on the same port, with a certificate of the bridge's own for the hosts of its addresses. Phones
    /// compare it with what the bridge tells them inside the channel.
    #[arg(long)]
    tls: bool,
    /// Make the next certificate key the present one. Phones have been told of both.
    #[arg(long, requires = "tls")]
    rotate_certificate: bool,
    /// Advertise the bridge on the local network under this name, where phones that were paired with it find it.
    #[arg(long, value_name = "NAME")]
    advertise: Option<Label>,
    /// Over which network interfaces, by name; may be repeated. By default over all but loopback and those of
    /// containers and virtual machines.
    #[arg(long = "interface", value_name = "NAME", requires = "advertise")]
    interfaces: Vec<String>,
    /// Where to append the log, in place of standard error.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// A file with the number of seconds that the bridge's wall clock is ahead, for trying out the effects of time.
    #[arg(long, value_name = "FILE")]
    clock_offset_file: Option<PathBuf>,
}

/// The words of a command line: separated by spaces, with quotes and backslashes as in a shell, and nothing else of it.
fn words(line: &str) -> Outcome<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\'', None) | ('"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => {
                let escaped =
                    letters.next().ok_or_else(|| Problem::said("the command line ends in a backslash"))?;
                word.get_or_insert_default().push(escaped);
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Problem::said("a quote of the command line is not closed"));
    }
    words.extend(word);
    Ok(words.into_iter().map(OsString::from).collect())
}

/// Runs a bridge until it is stopped.
pub async fn run(arguments: Arguments) -> Outcome<ExitCode> {
    let log = Writer::start(arguments.log.clone())?;
    let ended = serve(arguments, &log).await;
    log.finish();
    ended
}

async fn serve(arguments: Arguments, log: &Writer) -> Outcome<ExitCode> {
    let keys: Outcome<Vec<Vec<DevicePublicKey>>> =
        arguments.enroll.iter().map(|enroll| read_keys(enroll)).collect();
    let signals = Signals::watch()?;
    let settings = Settings {
        read_files: arguments.client_files,
        write_files: arguments.client_files,
        terminals: arguments.client_terminals,
        unattended: Duration::from_secs(arguments.unattended),
        ..Settings::default()
    };
    let clock = arguments.clock_offset_file.map_or_else(Clock::system, Clock::moved_by_file)?;
    let certificate = match arguments.tls {
        true => Some(certificate(&arguments.state, &arguments.urls, &arguments.listen, &clock)?),
        false => None,
    };
    if let (Some(certificate), true) = (&certificate, arguments.rotate_certificate) {
        certificate.rotate(&clock)?;
    }
    let run = Run {
        words: words(&arguments.command)?,
        directory: arguments.cwd,
        settings,
        certificates: match &certificate {
            Some(certificate) => {
                let certificate = Arc::clone(certificate);
                Arc::new(move || certificate.hashes())
            }
            None => Arc::new(Vec::new),
        },
        log: log.log(),
    };
    let config = Config {
        listen: arguments.listen,
        audit: Some(arguments.state.join("audit.jsonl")),
        state: arguments.state,
        in_memory: arguments.in_memory,
        urls: arguments.urls,
        rules: None,
        offset: UtcOffset::UTC,
        enroll: keys?.concat(),
        clock: clock.clone(),
        look: agent::LOOK,
        patience: transport::FRAME_PATIENCE,
        log: log.log(),
        options: Options {
            log_dropped: log.dropped(),
            tls: certificate.as_ref().map(Certificate::secure),
            ..Options::default()
        },
    };
    let running = agent::start_hosting(config, |ends| Bridge::new(run, ends)).await?;
    if let Some(certificate) = certificate {
        tokio::spawn(certificate.keep_valid(clock, log.log()));
    }
    let advertised = match arguments.advertise {
        Some(name) => {
            let interfaces = match arguments.interfaces.is_empty() {
                true => Interfaces::Networks,
                false => Interfaces::Only(arguments.interfaces),
            };
            let advert = Advert::new(name, running.url.port(), running.url.path(), KeyHash::of(&running.key));
            Some(Advertisement::start(&advert, interfaces)?)
        }
        None => None,
    };
    signals.serve(&running, log).await?;
    if let Some(advertised) = advertised {
        advertised.stop().await;
    }
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// The certificate for the hosts under which phones reach the bridge.
fn certificate(
    state: &Path,
    urls: &[AgentUrl],
    listen: &SocketAddr,
    clock: &Clock,
) -> Outcome<Arc<Certificate>> {
    make_private_directory(state)?;
    let bare = |url: &AgentUrl| url.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut names: Vec<String> = urls.iter().map(bare).collect();
    if names.is_empty() {
        names.push(listen.ip().to_string());
    }
    names.sort();
    names.dedup();
    Certificate::open(state, &names, clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_splits_words() {
        let split = |line| words(line).map(|words| words.join(&OsString::from("|"))).ok();
        assert_eq!(split("npx  some-agent --acp"), Some("npx|some-agent|--acp".into()));
        assert_eq!(split(r#"sh -c 'echo "a b"' x\ y"#), Some(r#"sh|-c|echo "a b"|x y"#.into()));
        assert_eq!(split(r#""a \" b" '' $HOME *"#), Some(r#"a " b||$HOME|*"#.into()));
        assert_eq!((split("a 'b"), split("a\\")), (None, None));
    }
}
