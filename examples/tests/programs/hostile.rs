//! Peers that may do nothing, and malformed bytes.

use futures_util::SinkExt;
use rand::RngCore;
use rand::rngs::OsRng;
use serde_json::json;
use sessioncap::noise::Initiator;
use sessioncap::{HolderSecretKey, Link, MAGIC, OpSet, TicketSecret};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::phone;
use super::wire::{Answer, connect_device, first_message, knock, redeem};
use super::world::{ECHO, World};

fn message(world: &World, key: &HolderSecretKey, payload: &[u8]) -> Vec<u8> {
    Initiator::start(key, &world.key, payload, &mut OsRng).unwrap().message
}

#[tokio::test]
async fn a_peer_that_has_proven_nothing_gets_the_close_of_a_stranger() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let stolen = redeem(&world, &pairing.link, &phone(1)).await.unwrap().credential;
    let elsewhere = World::start().await;
    let there = elsewhere.session(ECHO).await;
    let there = elsewhere.pair(&there, &[]).await;
    let foreign = redeem(&elsewhere, &there.link, &phone(2)).await.unwrap().credential;

    let guess = Link::new(world.url.clone(), world.key, TicketSecret::from_bytes([7; 16]));
    let attach = |key: &HolderSecretKey, credential| {
        sessioncap::phone::attach(&world.key, key, credential, OpSet::EMPTY, &mut OsRng).unwrap().message
    };
    let device = HolderSecretKey::from_bytes(*world.device_key().expose_bytes());
    let cases = [
        ("a stranger", message(&world, &phone(3), b"")),
        ("a stranger with words", message(&world, &phone(3), b"let me in")),
        ("a guessed ticket", first_message(&guess, &phone(3)).message),
        ("a credential of another agent", attach(&phone(2), &foreign)),
        ("a stolen credential", attach(&phone(3), &stolen)),
        ("half a payload", message(&world, &phone(3), &MAGIC)),
        ("a malformed payload", message(&world, &phone(3), &[MAGIC.as_slice(), &[0xa0; 156]].concat())),
        ("an enrolled device that poses as a phone", message(&world, &device, &MAGIC)),
    ];
    let stranger = (Answer::Closed(Some((1008, String::new()))), false);
    for (who, message) in cases {
        assert_eq!(knock(&world, Message::binary(message)).await, stranger, "{who}");
    }
    // The one that owns it is still in.
    assert!(super::attach(&world, &phone(1), &stolen).await.is_ok());
}

#[tokio::test]
async fn bytes_without_a_meaning_close_their_own_connection_and_nothing_else() {
    let world = World::start().await;
    let session = world.session(ECHO).await;
    let pairing = world.pair(&session, &[]).await;
    let mut device = connect_device(&world, &world.device_key()).await.unwrap();
    device.call(json!({ "method": "shell.attach_session", "id": session, "tail": true })).await;
    let idle: Vec<_> = {
        let mut idle = Vec::new();
        for _ in 0..40 {
            idle.push(TcpStream::connect((world.url.host(), world.url.port())).await.unwrap());
        }
        idle
    };

    let good = first_message(&pairing.link, &phone(1)).message;
    let mut bad = vec![Vec::new(), vec![0], good[..good.len() - 1].to_vec(), good[..95].to_vec()];
    bad.extend([0, 31, 32, 79, 80, 96, 100, good.len() - 1].map(|at| {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        flipped
    }));
    bad.push([good.as_slice(), &[0]].concat());
    bad.extend([4_704, 4_705, 65_535, 65_536, 200_000].map(|length| {
        let mut random = vec![0; length];
        OsRng.fill_bytes(&mut random);
        random
    }));
    for message in bad {
        let (length, begin) = (message.len(), message.get(..4).map(<[u8]>::to_vec));
        let (answer, more) = knock(&world, Message::binary(message)).await;
        assert!(matches!(answer, Answer::Closed(_)) && !more, "{length} bytes from {begin:?}: {answer:?}");
    }
    assert!(!world.audit().contains("ticket_redeemed"), "no damaged message redeems anything");

    // A phone whose stream is damaged later loses its connection, and only that.
    let joined = redeem(&world, &pairing.link, &phone(1)).await.unwrap();
    let mut stream = joined.stream;
    assert_eq!(stream.call(json!({ "method": "shell.list_sessions" })).await["ok"], true);
    stream.socket.send(Message::binary(vec![0; 40])).await.unwrap();
    assert_eq!(stream.hear().await, None);
    let mut stream = redeem(&world, &pairing.link, &phone(1)).await.unwrap().stream;
    stream.send_plaintext(&[9, 9, 9]).await;
    assert_eq!(stream.until_end().await, (String::new(), None), "an end that tells no status");

    device.send(b"undisturbed\r").await;
    device.until_raw("got:undisturbed").await;
    drop(idle);
}
