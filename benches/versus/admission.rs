//! An attach, beside biscuit-auth on the same bytes and an HMAC chain over the same
//! five caveats, which is what verifying a macaroon is.

use hmac::{Hmac as HmacOf, Mac};
use rand::rngs::OsRng;
use sessioncap::noise::Responder;
use sessioncap::{Credential, OpSet};
use sha2::Sha256;

use crate::plain::Presented;
use crate::report::{Budget, Report};
use crate::sample::{Side, compare, repeat};
use crate::world::{Phone, URL, World};

/// Admission with no memory of the credential: from the payload of message 1 to a pending guard and
/// the payload of message 2. The shape check, the ledger and the native check of the scope are ours
/// alone. Both sides drop what they made within the measured time.
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

/// The warm path would be a bounded cache of decisions; until it is built, the cold path is measured.
pub fn warm(report: &mut Report, rounds: usize) {
    report.section("reattach: the warm path is not built yet, so this is the cold one");
    let world = World::new();
    let phone = world.phone();
    let chain = HmacChain::new(&world, &phone);
    let compared = compare(rounds, admits(&world, &phone), repeat(|| chain.verify()));
    report.compared(
        "admit / HMAC chain of five caveats (budget once built: <= 1)",
        compared,
        Budget::Information,
    );
}

fn admits<'a>(world: &'a World, phone: &Phone) -> Side<'a> {
    let message = world.fresh_attach(phone);
    let received = Responder::read(&world.agent, &message, &mut OsRng).unwrap();
    repeat(move || world.admit(&received))
}

/// The signatures of a macaroon with the caveats agent, session, operations, end and ticket: each is
/// the HMAC-SHA256 of a caveat under the one before it.
struct HmacChain {
    key: [u8; 32],
    id: Vec<u8>,
    caveats: [String; 5],
    asked: [String; 3],
    signature: [u8; 32],
}

const OPERATIONS: &str = "ops = read_metadata,stream_output,send_input,detach,receive_notifications";

impl HmacChain {
    fn new(world: &World, phone: &Phone) -> Self {
        let credential = Credential::parse(&phone.credential).unwrap();
        let asked = [
            format!("agent = {} {URL}", world.agent.public()),
            format!("session = {}", phone.session),
            format!("ticket = {}", credential.ticket()),
        ];
        let [agent, session, ticket] = asked.clone();
        let caveats = [agent, session, ticket, OPERATIONS.to_owned(), "time < 1780043200".to_owned()];
        let mut chain = Self {
            key: [7; 32],
            id: credential.id().as_bytes().to_vec(),
            caveats,
            asked,
            signature: [0; 32],
        };
        chain.signature = chain.fold();
        chain.verify();
        chain
    }

    fn fold(&self) -> [u8; 32] {
        let step = |key: [u8; 32], message: &[u8]| -> [u8; 32] {
            HmacOf::<Sha256>::new_from_slice(&key)
                .unwrap()
                .chain_update(message)
                .finalize()
                .into_bytes()
                .into()
        };
        self.caveats.iter().fold(step(self.key, &self.id), |key, caveat| step(key, caveat.as_bytes()))
    }

    fn verify(&self) {
        let holds =
            |caveat: &String| self.asked.contains(caveat) || operations_allow(caveat) || not_ended(caveat);
        assert!(self.fold() == self.signature && self.caveats.iter().all(holds));
    }
}

fn operations_allow(caveat: &str) -> bool {
    let Some(names) = caveat.strip_prefix("ops = ") else { return false };
    names.parse().is_ok_and(|ops: OpSet| OpSet::COMPANION.is_subset_of(ops))
}

fn not_ended(caveat: &str) -> bool {
    let Some(end) = caveat.strip_prefix("time < ") else { return false };
    end.parse().is_ok_and(|end: u64| 1_780_000_100 < end)
}
