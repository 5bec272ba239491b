//! Looking into a ledger, and into a decision, without a gate: nothing that redeems or attaches is shown, every
//! damaged row is named, and a file is never changed.
#![cfg(all(
    feature = "agent",
    feature = "holder",
    feature = "issuer",
    feature = "attenuate",
    feature = "redb"
))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod common;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use common::ledger::{Rows, TestLedger};
use common::*;
use rand::rngs::{OsRng, StdRng};
use rand::{Rng, SeedableRng};
use sessioncap::agent::ledger::{Check, Damage, Dump, DumpedRow, Ledger, RedbLedger, Table};
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;

const ALL: OpSet = OpSet::COMPANION;

fn less() -> OpSet {
    OpSet::only(Op::StreamOutput).with(Op::ReadMetadata)
}

/// What must not be seen in any output.
struct Secrets(Vec<Vec<u8>>);

/// Fills a ledger with records in every state, and returns the secrets of all of them.
fn fill(ledger: impl Ledger + 'static) -> Secrets {
    let quotas = Quotas::default().with_tickets_per_session(99).with_credentials_per_session(99);
    let mut world = World::with(ledger, |config| config.with_quotas(quotas));
    let desktop = world.desktop(9);
    world.start_session("other");
    let share = |world: &World, label: &str, terms: PairingTerms| {
        desktop.share(world, &terms.with_label(text(label)))
    };
    let short = terms().with_ticket_lifetime(30).unwrap();
    let expired = share(&world, "expired", short);
    world.pass(31);
    let open = share(&world, "open", terms());
    let active = share(&world, "active", terms());
    let first = world.join(&active.link, &phone(2)).unwrap().credential;
    desktop.renew(&world, &active, less(), 3_600).unwrap();
    desktop.renew(&world, &active, OpSet::ALL, 7_200).unwrap();
    let second = world.attach_renewed(&phone(2), &first).unwrap();
    desktop.renew(&world, &active, ALL, 20_000).unwrap();
    let waiting = share(&world, "waiting", terms().with_confirmation(Confirmation::Required));
    assert!(world.join(&waiting.link, &phone(3)).is_err());
    let revoked = share(&world, "revoked", terms());
    let third = world.join(&revoked.link, &phone(4)).unwrap().credential;
    world.gate.revoke_credential(&revoked.credential, world.now).unwrap();
    let withdrawn = share(&world, "withdrawn", terms());
    world.gate.revoke_ticket(&withdrawn.ticket, world.now).unwrap();
    let ended = desktop.share_session(&world, "other", &terms());
    let fourth = world.join(&ended.link, &phone(5)).unwrap().credential;
    world.gate.end_session(&session("other"), world.now).unwrap();
    let mut secrets = Vec::new();
    for pairing in [&expired, &open, &active, &waiting, &revoked, &withdrawn, &ended] {
        secrets.push(pairing.link.ticket().expose_bytes().to_vec());
        secrets.push(pairing.link.ticket().public_key().as_bytes().to_vec());
        // The unbound credential is the last field; its last 32 bytes are the key for the next block.
        let offer = pairing.offer.to_bytes();
        secrets.push(offer[offer.len() - 96..].to_vec());
    }
    for credential in [&first, &second, &third, &fourth] {
        let bytes = credential.as_bytes();
        // The key for the next block, and the first signature's surroundings.
        secrets.push(bytes[bytes.len() - 32..].to_vec());
        secrets.push(bytes[..40].to_vec());
    }
    for seed in 2..6 {
        secrets.push(phone(seed).expose_bytes().to_vec());
    }
    Secrets(secrets)
}

impl Secrets {
    /// In hexadecimal, in base64 from each of the three offsets, and as a list of numbers.
    fn assert_absent(&self, shown: &str) {
        assert!(!self.found_in(shown), "{shown}");
    }

    fn found_in(&self, shown: &str) -> bool {
        let lower = shown.to_lowercase();
        self.0.iter().any(|secret| {
            // Every part of 12 bytes, so that a cut or a change of the frame does not hide it.
            secret.chunks_exact(12).any(|part| {
                let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
                let numbers = part.iter().map(u8::to_string).collect::<Vec<_>>();
                lower.contains(&hex)
                    || shown.contains(&numbers.join(","))
                    || shown.contains(&numbers.join(", "))
            }) || (0..3).any(|offset| {
                let part = &secret[offset..offset + 12];
                shown.contains(&STANDARD.encode(part)) || shown.contains(&URL_SAFE.encode(part))
            })
        })
    }
}

fn filled() -> (TestLedger, Secrets) {
    let ledger = TestLedger::default();
    let secrets = fill(ledger.clone());
    (ledger, secrets)
}

fn damage_of(rows: Rows) -> Vec<(String, Damage)> {
    let check = Check::of(&TestLedger::with_rows(rows)).unwrap();
    check.findings.into_iter().map(|finding| (finding.table.to_owned(), finding.damage)).collect()
}

/// A directory for one test.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("sessioncap-inspection-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_dump_has_every_record_and_nothing_that_redeems_or_attaches() {
    let (ledger, secrets) = filled();
    let dump = Dump::of(&ledger).unwrap();
    assert!(dump.unreadable.is_empty());
    let json = serde_json::to_string(&dump).unwrap();
    secrets.assert_absent(&json);
    secrets.assert_absent(&format!("{dump:?}"));
    let states = |row: &DumpedRow| match row {
        DumpedRow::Ticket { state, .. } => Some(format!("ticket {state}")),
        DumpedRow::Credential { state, .. } => Some(format!("credential {state}")),
        _ => None,
    };
    let states: std::collections::BTreeSet<String> = dump.rows.iter().filter_map(states).collect();
    for state in ["ticket open", "ticket claimed", "ticket revoked", "ticket expired"] {
        assert!(states.contains(state), "{states:?}");
    }
    for state in ["credential pending", "credential active", "credential revoked"] {
        assert!(states.contains(state), "{states:?}");
    }
    for part in
        ["\"label\":\"waiting\"", "\"ops\":[\"read_metadata\"", "\"in_use\":false", "\"row\":\"session\""]
    {
        assert!(json.contains(part), "{part}: {json}");
    }
    // The rows themselves have them, so the search would find them.
    let rows = ledger.rows().values().map(|row| STANDARD.encode(row)).collect::<String>();
    let hex = ledger.rows().values().flatten().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(secrets.found_in(&hex) && !rows.is_empty());
}

#[test]
fn what_a_gate_has_written_is_sound() {
    let (ledger, _) = filled();
    let check = Check::of(&ledger).unwrap();
    assert!(check.is_sound(), "{:?}", check.findings);
    assert_eq!((check.format, check.rows), (Some(3), ledger.rows().len()));
    let empty = Check::of(&TestLedger::default()).unwrap();
    assert!(empty.is_sound() && empty.format.is_none() && empty.rows == 0);
}

#[test]
fn a_row_that_is_lost_is_noticed_and_named() {
    let (ledger, _) = filled();
    let whole = ledger.rows();
    let mut tables = std::collections::BTreeSet::new();
    for (table, key) in whole.keys().cloned().collect::<Vec<_>>() {
        // An audit record is removed once the sink has it, and so is the progress of a node without records.
        if table == Table::Events {
            continue;
        }
        let mut rows = whole.clone();
        rows.remove(&(table, key.clone()));
        let damage = damage_of(rows);
        if damage.is_empty() {
            assert!(table == Table::Meta && key.starts_with(b"progress"), "{table:?} {key:02x?}");
        }
        let is_index = matches!(
            table,
            Table::BySession | Table::ByHandle | Table::ByTime | Table::Ended | Table::EndedOf
        );
        if is_index {
            assert_eq!(damage, [(table.name().to_owned(), Damage::MissingIndex)]);
        }
        tables.insert(table);
    }
    assert_eq!(tables.len(), Table::ALL.len() - 1, "{tables:?}");
}

#[test]
fn a_row_that_cannot_be_read_and_one_too_many_are_named() {
    let (ledger, _) = filled();
    let whole = ledger.rows();
    for (table, key) in whole.keys().cloned().collect::<Vec<_>>() {
        let mut rows = whole.clone();
        rows.get_mut(&(table, key.clone())).unwrap().push(0);
        let damage = damage_of(rows);
        assert!(damage.contains(&(table.name().to_owned(), Damage::Unreadable)), "{table:?}: {damage:?}");
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let check = Check::of(&TestLedger::with_rows({
            let mut rows = whole.clone();
            rows.get_mut(&(table, key)).unwrap().push(0);
            rows
        }));
        assert!(check.unwrap().findings.iter().any(|finding| finding.key == hex));
    }
    for table in [Table::BySession, Table::ByHandle, Table::ByTime, Table::Ended, Table::EndedOf] {
        let mut rows = whole.clone();
        rows.insert((table, vec![7; 40]), Vec::new());
        assert_eq!(damage_of(rows), [(table.name().to_owned(), Damage::StrayIndex)]);
    }
    let mut rows = whole.clone();
    rows.insert((Table::Meta, b"else".to_vec()), vec![1]);
    assert_eq!(damage_of(rows), [("meta".to_owned(), Damage::UnknownRow)]);
    let mut rows = whole;
    let (_, ticket) = rows.iter().find(|((table, _), _)| *table == Table::Tickets).unwrap();
    let ticket = ticket.clone();
    rows.insert((Table::Tickets, vec![9; 16]), ticket);
    assert!(damage_of(rows).contains(&("tickets".to_owned(), Damage::WrongKey)));
}

#[test]
fn a_record_in_another_ones_place_is_named() {
    let (ledger, _) = filled();
    let whole = ledger.rows();
    let of = |table: Table| whole.iter().filter(move |((of, _), _)| *of == table);
    // Live credentials are longer than ended ones, because they have their bytes.
    let longest = of(Table::Credentials).max_by_key(|(_, value)| value.len()).unwrap();
    for ((_, key), _) in of(Table::Credentials).filter(|(key, _)| *key != longest.0) {
        let mut rows = whole.clone();
        rows.insert((Table::Credentials, key.clone()), longest.1.clone());
        let damage = damage_of(rows);
        assert!(damage.contains(&("credentials".to_owned(), Damage::WrongCredential)), "{damage:?}");
    }
    // A session whose epoch has moved on has no live records, and one of an issuer that is gone has none.
    let mut rows = whole.clone();
    let ((_, key), value) = of(Table::Sessions).find(|((_, key), _)| key.starts_with(b"3f0c")).unwrap();
    let mut value = value.clone();
    assert!(value[1] < 0x17);
    value[1] = 0x17;
    rows.insert((Table::Sessions, key.clone()), value);
    assert!(damage_of(rows).contains(&("credentials".to_owned(), Damage::WrongEpoch)));
    let mut rows = whole.clone();
    rows.retain(|(table, _), _| *table != Table::Issuers);
    assert!(damage_of(rows).contains(&("credentials".to_owned(), Damage::WrongIssuer)));
    let mut rows = whole.clone();
    let ((_, key), value) = of(Table::Devices).next().unwrap();
    let mut value = value.clone();
    value[1] += 1;
    rows.insert((Table::Devices, key.clone()), value);
    assert_eq!(damage_of(rows), [("devices".to_owned(), Damage::WrongCount)]);
}

#[test]
fn a_format_that_is_not_known_is_not_looked_into() {
    let (ledger, _) = filled();
    let mut rows = ledger.rows();
    let header = rows.get_mut(&(Table::Meta, b"header".to_vec())).unwrap();
    header[1] = 9;
    let ledger = TestLedger::with_rows(rows);
    let unknown = LedgerFailure::UnknownFormat { version: 9 };
    assert_eq!(Check::of(&ledger).unwrap_err().cause(), unknown);
    assert_eq!(Dump::of(&ledger).unwrap_err().cause(), unknown);
}

#[test]
fn a_file_is_copied_without_a_change_and_not_while_it_is_open() {
    let directory = directory("copy");
    let file = directory.join("ledger.redb");
    assert_eq!(RedbLedger::copy_of(&file).unwrap_err().cause(), LedgerFailure::Io);
    assert!(!file.exists(), "it is not created");
    assert_eq!(RedbLedger::copy_of(&directory).unwrap_err().cause(), LedgerFailure::NotAFile);
    let secrets = fill(RedbLedger::open(&file).unwrap());
    let before = std::fs::read(&file).unwrap();
    let copy = RedbLedger::copy_of(&file).unwrap();
    let dump = Dump::of(&copy).unwrap();
    assert!(Check::of(&copy).unwrap().is_sound() && dump.rows.len() > 10);
    secrets.assert_absent(&format!("{dump:?}"));
    // A gate over the copy writes to the copy alone.
    drop(World::on(copy));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let open = RedbLedger::open(&file).unwrap();
    assert_eq!(RedbLedger::copy_of(&file).unwrap_err().cause(), LedgerFailure::InUse);
    drop(open);
    for foreign in [&b"# notes\n"[..], &[255; 10_000]] {
        std::fs::write(&file, foreign).unwrap();
        assert_eq!(RedbLedger::copy_of(&file).unwrap_err().cause(), LedgerFailure::Corrupt);
        assert_eq!(std::fs::read(&file).unwrap(), foreign);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_damaged_file_is_refused_or_reported_or_says_what_it_said() {
    let cases: usize = std::env::var("SESSIONCAP_CASES").map_or(1, |text| text.parse().unwrap());
    let directory = directory("damage");
    let file = directory.join("ledger.redb");
    fill(RedbLedger::open(&file).unwrap());
    let whole = std::fs::read(&file).unwrap();
    let said = Dump::of(&RedbLedger::copy_of(&file).unwrap()).unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut refused = 0;
    for case in 0..150 * cases {
        let mut content = whole.clone();
        match case % 5 {
            0 => content.truncate(rng.gen_range(0..whole.len())),
            1 => content.extend((0..rng.gen_range(1..9_000)).map(|_| 7)),
            2 => {
                let at = rng.gen_range(0..whole.len() - 600);
                rng.fill(&mut content[at..at + 600]);
            }
            _ => content[used[rng.gen_range(0..used.len())]] ^= 1 << rng.gen_range(0..8),
        }
        std::fs::write(&file, &content).unwrap();
        let looked = RedbLedger::copy_of(&file)
            .and_then(|copy| Check::of(&copy).and_then(|check| Ok((check, Dump::of(&copy)?))));
        match looked {
            Err(_) => refused += 1,
            Ok((check, dump)) if check.is_sound() && check.rows > 0 => assert_eq!(dump, said, "case {case}"),
            Ok((check, _)) => assert!(!check.is_sound() || content.is_empty(), "case {case}"),
        }
        assert_eq!(std::fs::read(&file).unwrap(), content, "case {case}: looking changed the file");
    }
    assert!(refused > 20 * cases, "{refused}");
    std::fs::remove_dir_all(directory).unwrap();
}

/// A credential with its issuer's key, narrowed once.
fn narrowed() -> (World, Credential, IssuerPublicKey) {
    let world = World::new();
    let desktop = world.desktop(9);
    let pairing = desktop.share(&world, &terms());
    let bytes = world.join(&pairing.link, &phone(2)).unwrap().credential;
    let credential = Credential::parse(&bytes).unwrap().attenuate(Some(less()), None, &mut OsRng).unwrap();
    (world, credential, IssuerSecretKey::from_bytes([9 ^ 0x55; 32]).public())
}

#[test]
fn signatures_are_checked_with_the_issuers_key_and_no_other() {
    let (_, credential, issuer) = narrowed();
    assert_eq!(credential.check_signatures(&issuer), Ok(()));
    let other = IssuerSecretKey::from_bytes([1; 32]).public();
    let wrong = Err(Error::Credential(CredentialProblem::Signature));
    assert_eq!(credential.check_signatures(&other), wrong);
    // The edition's name stays when it is narrowed.
    let sealed = credential.seal().unwrap();
    assert_eq!((sealed.check_signatures(&issuer), sealed.edition()), (Ok(()), credential.edition()));
}

#[test]
fn a_decision_from_stated_facts_is_the_gates_and_names_each_reason() {
    let (world, credential, issuer) = narrowed();
    let policy = Policy::new();
    let facts = RequestFacts::of(&credential, world.now.timestamp());
    let names = |decided: Result<(), Vec<Denial>>| -> Vec<String> {
        let name = |denial: Denial| match denial {
            Denial::CaveatFailed { block, caveat } => format!("{block} {}", caveat.name()),
            denial => denial.code().to_owned(),
        };
        decided.err().into_iter().flatten().map(name).collect()
    };
    for &op in Op::ALL {
        let action = Action::Session(op);
        let stated = policy.decide_with_facts(&credential, &issuer, &facts, action);
        let gates = world.gate.explain(&phone(2).public(), credential.bytes(), action, world.now);
        assert_eq!(stated.is_ok(), gates.is_ok(), "{op}");
        assert_eq!(stated.err().map(|reasons| reasons[0].clone()), gates.err(), "{op}");
    }
    let decide = |change: &dyn Fn(&mut RequestFacts), op| {
        let mut facts = facts.clone();
        change(&mut facts);
        names(policy.decide_with_facts(&credential, &issuer, &facts, Action::Session(op)))
    };
    assert_eq!(decide(&|_| (), Op::SendInput), ["2 ops"]);
    assert_eq!(decide(&|facts| facts.epoch += 1, Op::StreamOutput), ["1 epoch"]);
    assert_eq!(decide(&|facts| facts.session = session("other"), Op::SendInput), ["0 session", "2 ops"]);
    assert_eq!(
        decide(&|facts| facts.time = Timestamp::MAX, Op::StreamOutput),
        ["0 expires_at", "1 expires_at"]
    );
    assert_eq!(decide(&|facts| facts.urls.clear(), Op::StreamOutput), ["0 agent"]);
    let holder = decide(&|facts| facts.holder = phone(3).public(), Op::StreamOutput);
    assert!(holder.contains(&"0 ticket".to_owned()) && holder.contains(&"1 holder".to_owned()), "{holder:?}");
    let other = IssuerSecretKey::from_bytes([1; 32]).public();
    let unsigned = policy.decide_with_facts(&credential, &other, &facts, Action::Session(Op::StreamOutput));
    assert_eq!(unsigned, Err(vec![Denial::CredentialSignatureInvalid]));
    let privilege = Action::Privileged(Privilege::AccessFiles);
    let denied = policy.decide_with_facts(&credential, &issuer, &facts, privilege);
    assert_eq!(denied, Err(vec![Denial::PrivilegeDenied { privilege: Privilege::AccessFiles }]));

    let rules = "deny if operation(\"stream_output\");\ncheck if weekday($d), $d <= 3;";
    let policy = Policy::with_operator_rules(rules, time::UtcOffset::UTC).unwrap();
    let ruled = policy.decide_with_facts(&credential, &issuer, &facts, Action::Session(Op::StreamOutput));
    let mut rules = ruled.unwrap_err();
    rules.sort_by_key(ToString::to_string);
    assert_eq!(rules, [Denial::OperatorRule { rule: 1 }, Denial::OperatorRule { rule: 2 }]);
}
