//! `Noise_IK_25519_ChaChaPoly_BLAKE2s` with an empty prologue, one struct for each state
//! (Noise revision 34; `docs/PROTOCOL.md` section 6).
//!
//! ```text
//! phone                                   agent
//! Initiator::start    -- message 1 -->    Responder::read
//! AwaitingReply       <-- message 2 --    Received::reply
//! Channel             <== transport ==>   Channel
//! Sealer, Opener      (its two halves)    Sealer, Opener
//! ```
//!
//! Each step consumes the previous state, so a state cannot be used twice or out of order, and a failed step
//! drops it. Only this file uses the crate snow.

use core::fmt;
use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::key::{AgentPublicKey, AgentSecretKey, HolderPublicKey, HolderSecretKey, x25519};
use crate::limits::{MAX_FRAME_LEN, MAX_HANDSHAKE_LEN, MAX_PAYLOAD_LEN};

/// The bytes that a transport frame adds to its plaintext.
const FRAME_OVERHEAD: usize = 16;

/// The bytes that message 2 adds to its payload: an ephemeral key of 32 and a tag of 16.
const REPLY_OVERHEAD: usize = 48;

/// The 32-byte hash of a finished handshake, equal on both sides and different for every handshake (Noise
/// revision 34, section 11.2). Not a secret.
type HandshakeHash = [u8; 32];

/// Gives snow the randomness of one ephemeral key, taken from the caller's generator, and nothing after that.
struct OneDraw(Option<Zeroizing<[u8; 32]>>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(drawn) if dest.len() == drawn.len() => {
                dest.copy_from_slice(drawn.as_slice());
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

/// An agent's own static key, whose public key is not computed again for each handshake. Any other key, the
/// ephemeral one above all, is snow's.
struct OwnKey {
    agent: AgentSecretKey,
    public: AgentPublicKey,
    /// Whether this is the agent's key.
    is_own: bool,
    other: Box<dyn Dh>,
}

impl Dh for OwnKey {
    fn name(&self) -> &'static str {
        self.other.name()
    }

    fn pub_len(&self) -> usize {
        self.other.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.other.priv_len()
    }

    fn set(&mut self, secret: &[u8]) {
        let secret = <[u8; 32]>::try_from(secret).ok().map(AgentSecretKey::from_bytes);
        self.is_own = secret.as_ref() == Some(&self.agent);
        if let Some(secret) = secret.filter(|_| !self.is_own) {
            self.other.set(secret.expose_bytes());
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.is_own = false;
        self.other.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        if self.is_own { self.public.as_bytes() } else { self.other.pubkey() }
    }

    fn privkey(&self) -> &[u8] {
        if self.is_own { self.agent.expose_bytes() } else { self.other.privkey() }
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        if !self.is_own {
            return self.other.dh(public, out);
        }
        // As snow, which passes buffers that may be longer.
        let public = public.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = Zeroizing::new(x25519(self.agent.expose_bytes(), public));
        out.first_chunk_mut::<32>().ok_or(snow::Error::Dh)?.copy_from_slice(shared.as_slice());
        Ok(())
    }
}

/// The randomness of one ephemeral key, and an agent's own static key.
struct Resolver(Zeroizing<[u8; 32]>, Option<AgentSecretKey>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let other = DefaultResolver.resolve_dh(choice)?;
        Some(match &self.1 {
            Some(agent) => {
                Box::new(OwnKey { agent: agent.clone(), public: agent.public(), is_own: false, other })
            }
            None => other,
        })
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

fn builder<'key, R: RngCore + CryptoRng>(
    own: Option<&AgentSecretKey>,
    rng: &mut R,
) -> Result<snow::Builder<'key>, Error> {
    let params: NoiseParams = Channel::PROTOCOL_NAME.parse().map_err(|_| Error::Noise)?;
    let mut drawn = Zeroizing::new([0; 32]);
    rng.fill_bytes(drawn.as_mut_slice());
    Ok(snow::Builder::with_resolver(params, Box::new(Resolver(drawn, own.cloned()))))
}

/// The phone's side before message 1.
#[derive(Debug)]
pub struct Initiator;

impl Initiator {
    /// Writes message 1. Costs three scalar multiplications.
    ///
    /// # Errors
    /// [`Error::Noise`] if `payload` is longer than [`MAX_PAYLOAD_LEN`].
    pub fn start<R: RngCore + CryptoRng>(
        holder: &HolderSecretKey,
        agent: &AgentPublicKey,
        payload: &[u8],
        rng: &mut R,
    ) -> Result<Started, Error> {
        let mut state = builder(None, rng)?
            .local_private_key(holder.expose_bytes())
            .and_then(|builder| builder.remote_public_key(agent.as_bytes()))
            .and_then(snow::Builder::build_initiator)
            .map_err(|_| Error::Noise)?;
        let mut message = vec![0; MAX_HANDSHAKE_LEN];
        let len = state.write_message(payload, &mut message).map_err(|_| Error::Noise)?;
        message.truncate(len);
        Ok(Started { message, next: AwaitingReply { state: Box::new(state) } })
    }
}

/// Message 1 and the state that waits for message 2.
#[derive(Debug)]
#[non_exhaustive]
pub struct Started {
    /// The message to send to the agent, as one binary WebSocket message.
    pub message: Vec<u8>,
    /// The state that reads the agent's answer.
    pub next: AwaitingReply,
}

/// The phone's side after message 1. It reads one answer:
///
/// ```compile_fail
/// fn twice(state: sessioncap::noise::AwaitingReply, message: &[u8]) {
///     let _ = (state.finish(message), state.finish(message));
/// }
/// ```
pub struct AwaitingReply {
    state: Box<snow::HandshakeState>,
}

impl AwaitingReply {
    /// Reads message 2. Costs two scalar multiplications.
    ///
    /// # Errors
    /// [`Error::Noise`] if it is not from the agent to whose key message 1 was encrypted.
    pub fn finish(mut self, message: &[u8]) -> Result<Finished, Error> {
        let payload = read_handshake(&mut self.state, message)?;
        let (handshake_hash, channel) = split(self.state)?;
        Ok(Finished { payload, handshake_hash, channel })
    }
}

/// A finished handshake. `Debug` does not show the payload, which can hold a credential.
#[non_exhaustive]
pub struct Finished {
    /// The other side's payload.
    pub payload: Vec<u8>,
    /// The handshake hash, for channel binding.
    pub handshake_hash: [u8; 32],
    /// The encrypted channel.
    pub channel: Channel,
}

/// The agent's side before message 1.
#[derive(Debug)]
pub struct Responder;

impl Responder {
    /// Reads message 1. Costs two scalar multiplications, and one more the first time for this `agent`.
    ///
    /// The peer's key is checked after the message has decrypted, and refused if it is of low order or not
    /// canonical.
    ///
    /// # Errors
    /// [`Error::Noise`] if the message is too long or was not made for this agent, [`Error::KeyLowOrder`] or
    /// [`Error::KeyNotCanonical`] if the peer's key is refused. Close the connection without an answer.
    pub fn read<R: RngCore + CryptoRng>(
        agent: &AgentSecretKey,
        message: &[u8],
        rng: &mut R,
    ) -> Result<Received, Error> {
        let mut state = builder(Some(agent), rng)?
            .local_private_key(agent.expose_bytes())
            .and_then(snow::Builder::build_responder)
            .map_err(|_| Error::Noise)?;
        let payload = read_handshake(&mut state, message)?;
        let peer =
            state.get_remote_static().and_then(|key| <[u8; 32]>::try_from(key).ok()).ok_or(Error::Noise)?;
        let peer = HolderPublicKey::from_bytes(peer)?;
        let handshake_hash = state.get_handshake_hash().try_into().map_err(|_| Error::Noise)?;
        Ok(Received { peer, payload, handshake_hash, state: Box::new(state) })
    }
}

/// The content of message 1, and the state that can answer it. `Debug` does not show the payload, which can
/// contain a credential.
///
/// The key, payload and hash belong to one connection and stay together.
pub struct Received {
    peer: HolderPublicKey,
    payload: Vec<u8>,
    handshake_hash: [u8; 32],
    state: Box<snow::HandshakeState>,
}

impl Received {
    /// Returns the peer's static key. Message 1 can be replayed; only a transport frame proves that the peer
    /// is present.
    #[must_use]
    pub fn peer(&self) -> &HolderPublicKey {
        &self.peer
    }

    /// Returns the peer's payload, which is empty for a device without this protocol.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Returns the handshake hash after message 1 (Noise revision 34, section 5.2), which is the same for
    /// every replay of the message.
    #[must_use]
    pub fn handshake_hash(&self) -> [u8; 32] {
        self.handshake_hash
    }

    /// Writes message 2. Costs three scalar multiplications. To refuse a stranger, drop this value without a
    /// reply.
    ///
    /// # Errors
    /// [`Error::Noise`] if `payload` is longer than [`MAX_PAYLOAD_LEN`].
    pub fn reply(mut self, payload: &[u8]) -> Result<Replied, Error> {
        let mut message = vec![0; MAX_PAYLOAD_LEN + REPLY_OVERHEAD];
        let len = self.state.write_message(payload, &mut message).map_err(|_| Error::Noise)?;
        message.truncate(len);
        let (handshake_hash, channel) = split(self.state)?;
        Ok(Replied { message, handshake_hash, channel })
    }
}

/// Message 2 and the channel that it opens.
#[derive(Debug)]
#[non_exhaustive]
pub struct Replied {
    /// The message to send to the peer, as one binary WebSocket message.
    pub message: Vec<u8>,
    /// The handshake hash, for channel binding.
    pub handshake_hash: [u8; 32],
    /// The encrypted channel.
    pub channel: Channel,
}

fn read_handshake(state: &mut snow::HandshakeState, message: &[u8]) -> Result<Vec<u8>, Error> {
    if message.len() > MAX_HANDSHAKE_LEN {
        return Err(Error::Noise);
    }
    let mut payload = vec![0; message.len()];
    let len = state.read_message(message, &mut payload).map_err(|_| Error::Noise)?;
    payload.truncate(len);
    Ok(payload)
}

fn split(state: Box<snow::HandshakeState>) -> Result<(HandshakeHash, Channel), Error> {
    let hash = state.get_handshake_hash().try_into().map_err(|_| Error::Noise)?;
    let keys = Arc::new(state.into_stateless_transport_mode().map_err(|_| Error::Noise)?);
    Ok((hash, Channel::of(Keys::Own(keys))))
}

/// The frame counter of one direction (Noise revision 34, section 5.1). It only increases, and ends
/// permanently after a failure or before the last value, which Noise reserves.
struct Counter(Option<u64>);

impl Counter {
    /// Returns the next value, each only once.
    fn next(&mut self) -> Result<u64, Error> {
        let value = self.0.take().filter(|value| *value < u64::MAX).ok_or(Error::Noise)?;
        self.0 = value.checked_add(1);
        Ok(value)
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

/// The keys of a finished handshake: of this file's, or of an agent with its own Noise.
#[derive(Clone)]
enum Keys {
    Own(Arc<snow::StatelessTransportState>),
    Foreign(Arc<dyn ForeignKeys>),
}

/// Each method returns the length of its result.
trait ForeignKeys: Send + Sync {
    fn encrypt(&self, counter: u64, plaintext: &[u8], frame: &mut [u8]) -> Option<usize>;
    fn decrypt(&self, counter: u64, frame: &[u8], plaintext: &mut [u8]) -> Option<usize>;
}

/// Keys and the two functions that use them.
struct Functions<K, E, D> {
    keys: K,
    encrypt: E,
    decrypt: D,
}

impl<K, E, D> ForeignKeys for Functions<K, E, D>
where
    K: Send + Sync,
    E: Fn(&K, u64, &[u8], &mut [u8]) -> Option<usize> + Send + Sync,
    D: Fn(&K, u64, &[u8], &mut [u8]) -> Option<usize> + Send + Sync,
{
    fn encrypt(&self, counter: u64, plaintext: &[u8], frame: &mut [u8]) -> Option<usize> {
        (self.encrypt)(&self.keys, counter, plaintext, frame)
    }

    fn decrypt(&self, counter: u64, frame: &[u8], plaintext: &mut [u8]) -> Option<usize> {
        (self.decrypt)(&self.keys, counter, frame, plaintext)
    }
}

impl Keys {
    /// Encrypts `plaintext` into `frame`, which has room for exactly its frame.
    fn encrypt(&self, counter: u64, plaintext: &[u8], frame: &mut [u8]) -> Result<usize, Error> {
        match self {
            Self::Own(keys) => keys.write_message(counter, plaintext, frame).map_err(|_| Error::Noise),
            Self::Foreign(keys) => {
                let written = keys.encrypt(counter, plaintext, frame);
                written.filter(|len| *len == frame.len()).ok_or(Error::Noise)
            }
        }
    }

    /// Decrypts `frame` into `plaintext`, which has room for as much.
    fn decrypt(&self, counter: u64, frame: &[u8], plaintext: &mut [u8]) -> Result<usize, Error> {
        match self {
            Self::Own(keys) => keys.read_message(counter, frame, plaintext).map_err(|_| Error::Noise),
            Self::Foreign(keys) => {
                let read = keys.decrypt(counter, frame, plaintext);
                read.filter(|len| len.checked_add(FRAME_OVERHEAD) == Some(frame.len())).ok_or(Error::Noise)
            }
        }
    }
}

/// An encrypted, ordered channel. One binary WebSocket message is one frame.
///
/// It carries any bytes. A phone and its agent exchange [`Frame`](crate::Frame)s over it (`docs/PROTOCOL.md`
/// section 6.5).
pub struct Channel {
    sealer: Sealer,
    opener: Opener,
}

impl Channel {
    /// The Noise protocol's full name.
    pub const PROTOCOL_NAME: &'static str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

    /// What a frame adds to its plaintext, bytes.
    pub const OVERHEAD: usize = FRAME_OVERHEAD;

    /// Longest plaintext of a frame, bytes.
    pub const MAX_PLAINTEXT_LEN: usize = MAX_FRAME_LEN;

    fn of(keys: Keys) -> Self {
        let sealer = Sealer { keys: keys.clone(), counter: Counter(Some(0)) };
        Self { sealer, opener: Opener { keys, counter: Counter(Some(0)) } }
    }

    /// Makes a channel of the transport keys of another Noise implementation, for an agent that has its own
    /// ([`PendingGuard::activate`](crate::agent::PendingGuard::activate)). The channel counts the frames.
    ///
    /// `encrypt` and `decrypt` get the keys, a frame's number, the plaintext or frame, and a buffer of at least
    /// the size of the result. They return how many bytes they have written, or `None` if they failed (Noise
    /// revision 34, section 5.1: `EncryptWithAd` and `DecryptWithAd` with that nonce and no associated data). The
    /// keys must be of a handshake of [`Channel::PROTOCOL_NAME`] and be used for nothing else: a number that
    /// encrypts two frames reveals both. Both functions run inside a permit and must not block. A result that has
    /// not the cipher's length ends its direction with [`Error::Noise`].
    pub fn from_keys<K: Send + Sync + 'static>(
        keys: K,
        encrypt: impl Fn(&K, u64, &[u8], &mut [u8]) -> Option<usize> + Send + Sync + 'static,
        decrypt: impl Fn(&K, u64, &[u8], &mut [u8]) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        Self::of(Keys::Foreign(Arc::new(Functions { keys, encrypt, decrypt })))
    }

    /// Encrypts one frame of at most [`Channel::MAX_PLAINTEXT_LEN`] bytes.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        self.sealer.seal(plaintext)
    }

    /// Does the same as [`Channel::seal`], into a reusable buffer, whose content is overwritten.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal_into(&mut self, plaintext: &[u8], frame: &mut Vec<u8>) -> Result<(), Error> {
        self.sealer.seal_into(plaintext, frame)
    }

    /// Decrypts the next frame.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub fn open(&mut self, frame: &[u8]) -> Result<Vec<u8>, Error> {
        self.opener.open(frame)
    }

    /// Does the same as [`Channel::open`], into a reusable buffer, whose content is overwritten.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub fn open_into(&mut self, frame: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        self.opener.open_into(frame, plaintext)
    }

    /// Splits the channel into its two directions, for two tasks.
    #[must_use]
    pub fn split(self) -> (Sealer, Opener) {
        (self.sealer, self.opener)
    }
}

/// The sending half of a [`Channel`]. It owns its counter, so no counter value is used for two frames.
pub struct Sealer {
    keys: Keys,
    counter: Counter,
}

impl Sealer {
    /// Encrypts one frame of at most [`Channel::MAX_PLAINTEXT_LEN`] bytes. Its length grows by [`Channel::OVERHEAD`].
    ///
    /// # Errors
    /// [`Error::FrameTooLong`] if the plaintext is too long; a shorter frame can still be sent.
    /// [`Error::Noise`] after 2^64 - 1 frames; nothing more can be sent then.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let mut frame = Vec::new();
        self.seal_into(plaintext, &mut frame)?;
        Ok(frame)
    }

    /// Does the same as [`Sealer::seal`], into a reusable buffer, whose content is overwritten.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal_into(&mut self, plaintext: &[u8], frame: &mut Vec<u8>) -> Result<(), Error> {
        if plaintext.len() > MAX_FRAME_LEN {
            return Err(Error::FrameTooLong { max: MAX_FRAME_LEN });
        }
        frame.resize(plaintext.len() + FRAME_OVERHEAD, 0);
        let written = self.counter.next().and_then(|counter| self.keys.encrypt(counter, plaintext, frame));
        frame.truncate(*written.as_ref().unwrap_or(&0));
        written.map(drop).inspect_err(|_| self.counter.end())
    }
}

/// The receiving half of a [`Channel`]. It owns its counter.
pub struct Opener {
    keys: Keys,
    counter: Counter,
}

impl Opener {
    /// Decrypts the next frame.
    ///
    /// # Errors
    /// [`Error::Noise`] if the frame was changed, repeated, or arrived out of order, or if one before it is
    /// missing. The connection is over then: no later frame is decrypted.
    pub fn open(&mut self, frame: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plaintext = Vec::new();
        self.open_into(frame, &mut plaintext)?;
        Ok(plaintext)
    }

    /// Does the same as [`Opener::open`], into a reusable buffer, whose content is overwritten.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub fn open_into(&mut self, frame: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        let fits = (FRAME_OVERHEAD..=MAX_FRAME_LEN + FRAME_OVERHEAD).contains(&frame.len());
        plaintext.resize(frame.len(), 0);
        let read = self.counter.next().and_then(|counter| match fits {
            true => self.keys.decrypt(counter, frame, plaintext),
            false => Err(Error::Noise),
        });
        plaintext.truncate(*read.as_ref().unwrap_or(&0));
        read.map(drop).inspect_err(|_| self.counter.end())
    }
}

macro_rules! redacted {
    ($($state:ident),*) => {
        $(impl fmt::Debug for $state {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($state)).finish_non_exhaustive()
            }
        })*
    };
}

redacted!(AwaitingReply, Channel, Sealer, Opener, Finished);

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::OsRng;

    use super::*;

    fn keys() -> (AgentSecretKey, HolderSecretKey) {
        (AgentSecretKey::from_bytes([1; 32]), HolderSecretKey::from_bytes([2; 32]))
    }

    fn connect(first: &[u8], second: &[u8]) -> (Finished, Replied, Received2) {
        let (agent, holder) = keys();
        let started = Initiator::start(&holder, &agent.public(), first, &mut OsRng).unwrap();
        let received = Responder::read(&agent, &started.message, &mut OsRng).unwrap();
        let seen = Received2 { peer: received.peer, payload: received.payload.clone() };
        let replied = received.reply(second).unwrap();
        let finished = started.next.finish(&replied.message).unwrap();
        (finished, replied, seen)
    }

    struct Received2 {
        peer: HolderPublicKey,
        payload: Vec<u8>,
    }

    #[test]
    fn one_round_trip_gives_both_sides_payloads_hash_and_channel() {
        let (mut phone, mut agent, seen) = connect(b"first", b"second");
        assert_eq!(seen.peer, keys().1.public());
        assert_eq!(seen.payload, b"first");
        assert_eq!(phone.payload, b"second");
        assert_eq!(phone.handshake_hash, agent.handshake_hash);
        for (text, frame) in [
            (b"hello".as_slice(), phone.channel.seal(b"hello").unwrap()),
            (b"", phone.channel.seal(b"").unwrap()),
        ] {
            assert_eq!(agent.channel.open(&frame).unwrap(), text);
        }
        let frame = agent.channel.seal(&[5; MAX_FRAME_LEN]).unwrap();
        assert_eq!(phone.channel.open(&frame).unwrap(), [5; MAX_FRAME_LEN]);
    }

    #[test]
    fn limits_of_payload_and_frame() {
        let (agent, holder) = keys();
        let start = |len| Initiator::start(&holder, &agent.public(), &vec![0; len], &mut OsRng);
        assert_eq!(start(MAX_PAYLOAD_LEN).unwrap().message.len(), MAX_HANDSHAKE_LEN);
        assert_eq!(start(MAX_PAYLOAD_LEN + 1).err(), Some(Error::Noise));
        let reply = |len| {
            let received = Responder::read(&agent, &start(0).unwrap().message, &mut OsRng).unwrap();
            received.reply(&vec![0; len]).map(|replied| replied.message.len())
        };
        assert_eq!(reply(MAX_PAYLOAD_LEN), Ok(MAX_PAYLOAD_LEN + REPLY_OVERHEAD));
        assert_eq!(reply(MAX_PAYLOAD_LEN + 1), Err(Error::Noise));
        let (mut phone, ..) = connect(b"", b"");
        assert_eq!(
            phone.channel.seal(&[0; MAX_FRAME_LEN + 1]),
            Err(Error::FrameTooLong { max: MAX_FRAME_LEN })
        );
        assert_eq!(phone.channel.open(&[]), Err(Error::Noise));
        assert_eq!(phone.channel.open(&[0; MAX_FRAME_LEN + 17]), Err(Error::Noise));
    }

    /// Message 1 or 2 as snow itself writes it, however long.
    fn written(state: &mut snow::HandshakeState, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0; payload.len() + 96];
        let len = state.write_message(payload, &mut message).unwrap();
        message.truncate(len);
        message
    }

    #[test]
    fn a_genuine_handshake_message_that_is_too_long_is_refused_for_its_length() {
        let (agent, holder) = keys();
        let public = agent.public();
        let initiator = || {
            builder(None, &mut OsRng)
                .unwrap()
                .local_private_key(holder.expose_bytes())
                .and_then(|builder| builder.remote_public_key(public.as_bytes()))
                .and_then(snow::Builder::build_initiator)
                .unwrap()
        };
        let responder = || {
            let builder = builder(None, &mut OsRng).unwrap().local_private_key(agent.expose_bytes());
            builder.and_then(snow::Builder::build_responder).unwrap()
        };
        // Message 1 adds 96 bytes to its payload and message 2 adds 48.
        for (len, taken) in [(MAX_HANDSHAKE_LEN - 96, true), (MAX_HANDSHAKE_LEN - 95, false), (60_000, false)]
        {
            let message = written(&mut initiator(), &vec![1; len]);
            assert_eq!(responder().read_message(&message, &mut [0; 65_535]).unwrap(), len, "it is genuine");
            let read = Responder::read(&agent, &message, &mut OsRng);
            assert_eq!(read.map(|received| received.payload.len()).ok(), taken.then_some(len));
        }
        for (len, taken) in [(MAX_HANDSHAKE_LEN - 48, true), (MAX_HANDSHAKE_LEN - 47, false), (60_000, false)]
        {
            let (mut phone, mut answering) = (initiator(), responder());
            let first = written(&mut phone, b"");
            answering.read_message(&first, &mut [0; 65_535]).unwrap();
            let message = written(&mut answering, &vec![1; len]);
            let finished = AwaitingReply { state: Box::new(phone) }.finish(&message);
            assert_eq!(finished.map(|finished| finished.payload.len()).ok(), taken.then_some(len));
        }
    }

    #[test]
    fn another_agents_key_reads_nothing() {
        let (agent, holder) = keys();
        let started = Initiator::start(&holder, &agent.public(), b"x", &mut OsRng).unwrap();
        let other = AgentSecretKey::from_bytes([3; 32]);
        assert_eq!(Responder::read(&other, &started.message, &mut OsRng).err(), Some(Error::Noise));
    }

    #[test]
    fn an_agents_own_key_does_what_snows_does() {
        let choice = DHChoice::Curve25519;
        for seed in 0..32 {
            let (agent, peer) =
                (AgentSecretKey::from_bytes([seed; 32]), HolderSecretKey::from_bytes([99; 32]).public());
            let resolver = Resolver(Zeroizing::new([4; 32]), Some(agent.clone()));
            for secret in [[seed; 32], [seed ^ 1; 32]] {
                let (mut own, mut snows) =
                    (resolver.resolve_dh(&choice).unwrap(), DefaultResolver.resolve_dh(&choice).unwrap());
                own.set(&secret);
                snows.set(&secret);
                // A buffer of snow's is longer than the key.
                let (mut ours, mut theirs) = ([7; 40], [7; 40]);
                own.dh(peer.as_bytes(), &mut ours).unwrap();
                snows.dh(peer.as_bytes(), &mut theirs).unwrap();
                assert_eq!((own.pubkey(), own.privkey(), ours), (snows.pubkey(), snows.privkey(), theirs));
            }
            let (mut own, mut snows) =
                (resolver.resolve_dh(&choice).unwrap(), DefaultResolver.resolve_dh(&choice).unwrap());
            own.set(&[seed; 32]);
            own.generate(&mut OneDraw(Some(Zeroizing::new([seed; 32])))).unwrap();
            snows.generate(&mut OneDraw(Some(Zeroizing::new([seed; 32])))).unwrap();
            assert_eq!((own.pubkey(), own.privkey()), (snows.pubkey(), snows.privkey()));
        }
    }

    #[test]
    fn a_low_order_static_key_is_refused_although_snow_takes_it() {
        let (agent, _) = keys();
        // An initiator without a secret: static key 0, whose every shared secret is 0.
        for (key, error) in [([0; 32], Error::KeyLowOrder), ([0xff; 32], Error::KeyNotCanonical)] {
            let message = message_with_static_key(&agent.public(), key);
            assert_eq!(Responder::read(&agent, &message, &mut OsRng).err(), Some(error));
        }
    }

    /// Message 1 whose `s` token is `key`, with the shared secret that everyone can compute.
    fn message_with_static_key(agent: &AgentPublicKey, key: [u8; 32]) -> Vec<u8> {
        struct Forged([u8; 32], Box<dyn Dh>, bool);
        impl Dh for Forged {
            fn name(&self) -> &'static str {
                "25519"
            }
            fn pub_len(&self) -> usize {
                32
            }
            fn priv_len(&self) -> usize {
                32
            }
            fn set(&mut self, secret: &[u8]) {
                self.2 = true;
                self.1.set(secret);
            }
            fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
                self.1.generate(rng)
            }
            fn pubkey(&self) -> &[u8] {
                if self.2 { &self.0 } else { self.1.pubkey() }
            }
            fn privkey(&self) -> &[u8] {
                self.1.privkey()
            }
            fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
                if self.2 && self.0 == [0; 32] {
                    out[..32].fill(0);
                    return Ok(());
                }
                self.1.dh(public, out)
            }
        }
        struct Forger([u8; 32], Resolver);
        impl CryptoResolver for Forger {
            fn resolve_rng(&self) -> Option<Box<dyn Random>> {
                self.1.resolve_rng()
            }
            fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
                Some(Box::new(Forged(self.0, self.1.resolve_dh(choice)?, false)))
            }
            fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
                self.1.resolve_hash(choice)
            }
            fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
                self.1.resolve_cipher(choice)
            }
        }
        // For the key with bit 255 set, use a real key pair and change only how it is spelled.
        let secret = [9; 32];
        let key = match key {
            [0, ..] => key,
            _ => {
                let mut public = *HolderSecretKey::from_bytes(secret).public().as_bytes();
                public[31] |= 0x80;
                public
            }
        };
        let resolver = Forger(key, Resolver(Zeroizing::new([4; 32]), None));
        let mut state =
            snow::Builder::with_resolver(Channel::PROTOCOL_NAME.parse().unwrap(), Box::new(resolver))
                .local_private_key(&secret)
                .unwrap()
                .remote_public_key(agent.as_bytes())
                .unwrap()
                .build_initiator()
                .unwrap();
        let mut message = vec![0; 200];
        let len = state.write_message(b"", &mut message).unwrap();
        message.truncate(len);
        message
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_bit_of_a_handshake_message_can_change(second: bool, place in 0..10_000_usize, bit in 0..8_u32) {
            let (agent, holder) = keys();
            let started = Initiator::start(&holder, &agent.public(), b"first", &mut OsRng).unwrap();
            let mut message = started.message.clone();
            if second {
                message = Responder::read(&agent, &message, &mut OsRng).unwrap().reply(b"second").unwrap().message;
            }
            let place = place % message.len();
            message[place] ^= 1 << bit;
            if second {
                // bit 255 of an ephemeral key is ignored by X25519, but it is hashed
                prop_assert!(started.next.finish(&message).is_err());
            } else {
                prop_assert!(Responder::read(&agent, &message, &mut OsRng).is_err());
            }
        }

        #[test]
        fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (agent, holder) = keys();
            prop_assert!(Responder::read(&agent, &bytes, &mut OsRng).is_err());
            let started = Initiator::start(&holder, &agent.public(), b"", &mut OsRng).unwrap();
            prop_assert!(started.next.finish(&bytes).is_err());
            let (mut phone, ..) = connect(b"", b"");
            prop_assert!(phone.channel.open(&bytes).is_err());
        }
    }

    #[test]
    fn a_frame_that_is_repeated_or_left_out_ends_the_channel() {
        for wrong in [0, 2] {
            let (mut phone, mut agent, _) = connect(b"", b"");
            let frames: Vec<_> = (0..3_u8).map(|n| phone.channel.seal(&[n]).unwrap()).collect();
            assert_eq!(agent.channel.open(&frames[0]).unwrap(), [0]);
            assert_eq!(agent.channel.open(&frames[wrong]), Err(Error::Noise));
            assert_eq!(
                agent.channel.open(&frames[1]),
                Err(Error::Noise),
                "the one that was due comes too late"
            );
            let frame = agent.channel.seal(b"still there").unwrap();
            assert_eq!(phone.channel.open(&frame).unwrap(), b"still there", "the other direction goes on");
        }
    }

    #[test]
    fn no_counter_is_used_twice_whatever_fails() {
        let (mut phone, mut agent, _) = connect(b"", b"");
        let first = phone.channel.seal(b"same").unwrap();
        assert!(phone.channel.seal(&[0; MAX_FRAME_LEN + 1]).is_err());
        let second = phone.channel.seal(b"same").unwrap();
        assert_ne!(first, second);
        assert_eq!(agent.channel.open(&first).unwrap(), b"same");
        assert_eq!(
            agent.channel.open(&second).unwrap(),
            b"same",
            "a frame that was too long took no counter"
        );

        let mut counter = Counter(Some(u64::MAX - 1));
        assert_eq!(counter.next(), Ok(u64::MAX - 1));
        assert_eq!(counter.next(), Err(Error::Noise), "the last value is reserved");
        assert_eq!(counter.next(), Err(Error::Noise), "and it stays over");
        let (mut sealer, _) = phone.channel.split();
        sealer.counter = Counter(Some(u64::MAX));
        assert_eq!(sealer.seal(b"x"), Err(Error::Noise));
        assert_eq!(sealer.seal(b"x"), Err(Error::Noise));
    }

    #[test]
    fn the_halves_work_on_two_threads() {
        let (phone, agent, _) = connect(b"", b"");
        let ((mut to_agent, mut from_agent), (mut to_phone, mut from_phone)) =
            (phone.channel.split(), agent.channel.split());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..100_u8 {
                    assert_eq!(from_phone.open(&to_agent.seal(&[n]).unwrap()).unwrap(), [n]);
                }
            });
            scope.spawn(move || {
                for n in 0..100_u8 {
                    assert_eq!(from_agent.open(&to_phone.seal(&[n]).unwrap()).unwrap(), [n]);
                }
            });
        });
    }
}
