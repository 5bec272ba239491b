//! Pairing from end to end, without sockets: offer, redeem, retry, contest, confirm, attach.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use common::*;
use sessioncap::*;

#[test]
fn a_phone_redeems_and_may_do_what_the_desktop_named() {
    let world = World::new();
    let pairing = world.desktop(9).share(&world, &PairingTerms::default());
    let mut joined = world.join(&pairing.link, &phone(2)).unwrap();
    assert_eq!(joined.guard.ops(), OpSet::COMPANION);
    assert_eq!(joined.guard.permit(Op::SendInput, world.now, || 5), Ok(5));
    assert_eq!(
        joined.guard.permit(Op::Resize, world.now, || 5),
        Err(Denial::OperationNotGranted { op: Op::Resize })
    );
    let mut guard = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap();
    assert_eq!(guard.permit(Op::StreamOutput, world.now, || 6), Ok(6));
    world.gate.revoke_credential(&pairing.credential, world.now).unwrap();
    assert_eq!(guard.permit(Op::StreamOutput, world.now, || 6), Err(Denial::CredentialRevoked));
    assert_eq!(joined.guard.permit(Op::StreamOutput, world.now, || 6), Err(Denial::CredentialRevoked));
}
