//! A credential that comes back, beside biscuit-auth on the same bytes and an HMAC macaroon with the
//! same five caveats.

use macaroon::{ByteString, Format, Macaroon, MacaroonKey, Verifier};
use rand::rngs::OsRng;
use sessioncap::noise::Responder;
use sessioncap::{Credential, OpSet};

use crate::plain::Presented;
use crate::report::{Budget, Report};
use crate::sample::{Side, compare, consume, repeat};
use crate::world::{Phone, URL, World};

/// Admission with no memory of the credential: from the payload of message 1 to a pending guard and
/// the payload of message 2. The shape check, the ledger and the native check of the scope are ours
/// alone.
pub fn cold(report: &mut Report, rounds: usize) {
    report.section("admission of a credential, cold");
    let world = World::new();
    let phone = world.phone();
    let presented = Presented::new(&world, &phone);
    let plain = compare(rounds, admits(&world, &phone), repeat(|| presented.authorize_with_text()));
    report.compared("admit / biscuit-auth: parse, verify, authorize", plain, Budget::AtMost(1.0));
    let bare = compare(rounds, admits(&world, &phone), repeat(|| presented.signatures_and_one_run()));
    report.compared("admit / bare signatures + one run", bare, Budget::AtMost(1.25));
    let complete = repeat(|| presented.signatures_next_secret_and_one_run());
    let compared = compare(rounds, admits(&world, &phone), complete);
    report.compared("admit / the same and the next secret checked", compared, Budget::Information);
    let shape = repeat(|| Credential::parse(&phone.credential).unwrap());
    let compared = compare(rounds, shape, repeat(|| presented.parse_and_verify()));
    report.compared("shape check alone / parse, verify", compared, Budget::Information);
    let compared = compare(rounds, repeat(|| presented.signatures()), repeat(|| presented.one_run()));
    report.compared("(peers) bare signatures / one run", compared, Budget::Information);
}

/// The warm path is to keep a bounded memory of verdicts; until it is built, the cold one stands in.
pub fn warm(report: &mut Report, rounds: usize) {
    report.section("reattach: the warm path is not built yet, so this is the cold one");
    let world = World::new();
    let phone = world.phone();
    let macaroon = Hmac::new(&world, &phone);
    let compared = compare(rounds, admits(&world, &phone), repeat(|| macaroon.verify()));
    report.compared("admit / HMAC macaroon, verify (budget once built: <= 1)", compared, Budget::Information);
    let compared = compare(rounds, admits(&world, &phone), repeat(|| macaroon.read_and_verify()));
    report.compared("admit / HMAC macaroon, deserialize and verify", compared, Budget::Information);
}

fn admits<'a>(world: &'a World, phone: &Phone) -> Side<'a> {
    let message = world.fresh_attach(phone);
    let received = Responder::read(&world.agent, &message, &mut OsRng).unwrap();
    consume(|| (), move |()| world.admit(received.peer.as_bytes(), &received.payload))
}

/// A macaroon with the caveats agent, session, operations, end and ticket. The verifier is made for
/// each request, because it holds the request's own agent, session and ticket.
struct Hmac {
    key: MacaroonKey,
    macaroon: Macaroon,
    bytes: String,
    exact: [String; 3],
}

const OPERATIONS: &str = "ops = read_metadata,stream_output,send_input,detach,receive_notifications";

impl Hmac {
    fn new(world: &World, phone: &Phone) -> Self {
        macaroon::initialize().unwrap();
        let credential = Credential::parse(&phone.credential).unwrap();
        let exact = [
            format!("agent = {} {URL}", world.agent.public()),
            format!("session = {}", phone.session),
            format!("ticket = {}", credential.ticket()),
        ];
        let key = MacaroonKey::generate(b"a key for this comparison");
        let mut macaroon = Macaroon::create(None, &key, credential.id().to_string().into()).unwrap();
        for caveat in &exact {
            macaroon.add_first_party_caveat(caveat.as_str().into());
        }
        macaroon.add_first_party_caveat(OPERATIONS.into());
        macaroon.add_first_party_caveat("time < 1780043200".into());
        let bytes = macaroon.serialize(Format::V2).unwrap();
        let hmac = Self { key, macaroon, bytes, exact };
        hmac.verify();
        hmac
    }

    fn verify(&self) {
        self.verifier().verify(&self.macaroon, &self.key, Vec::new()).unwrap();
    }

    fn read_and_verify(&self) {
        let macaroon = Macaroon::deserialize(&self.bytes).unwrap();
        self.verifier().verify(&macaroon, &self.key, Vec::new()).unwrap();
    }

    fn verifier(&self) -> Verifier {
        let mut verifier = Verifier::default();
        for caveat in &self.exact {
            verifier.satisfy_exact(caveat.as_str().into());
        }
        verifier.satisfy_general(operations_allow);
        verifier.satisfy_general(not_ended);
        verifier
    }
}

fn operations_allow(caveat: &ByteString) -> bool {
    let text = core::str::from_utf8(&caveat.0).ok();
    let Some(names) = text.and_then(|text| text.strip_prefix("ops = ")) else { return false };
    names.parse().is_ok_and(|ops: OpSet| OpSet::COMPANION.is_subset_of(ops))
}

fn not_ended(caveat: &ByteString) -> bool {
    let text = core::str::from_utf8(&caveat.0).ok();
    let Some(end) = text.and_then(|text| text.strip_prefix("time < ")) else { return false };
    end.parse().is_ok_and(|end: u64| 1_780_000_000 < end)
}
