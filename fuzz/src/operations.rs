//! Sequences of calls at one gate, beside a model of what must never happen.

use super::*;

const PHONES: u8 = 3;
const MOST_PAIRINGS: usize = 8;
const MOST_STEPS: usize = 60;

/// The model's state of one pairing.
struct Shared {
    pairing: Pairing,
    session: usize,
    /// The only phone that this ticket can ever have.
    holder: Option<u8>,
    credential: Option<CredentialBytes>,
    /// It was revoked in some way, and the call returned.
    dead: bool,
    /// It has had other terms.
    renewed: bool,
    /// The latest moment, by the monotonic clock, at which a stream may still run.
    ends_at: Option<Duration>,
}

struct Run {
    gate: Gate,
    ledger: TestLedger,
    surroundings: Surroundings,
    now: Now,
    shared: Vec<Shared>,
    /// Each with the operations that renewals have left of it.
    guards: Vec<(usize, Guard, OpSet)>,
    seed: u64,
    /// How many first messages there were.
    messages: u64,
}

/// Three bytes are one call: what, on which, with what.
pub fn operations(data: &[u8]) {
    let (ledger, surroundings) = (TestLedger::default(), Surroundings::running(&SESSIONS));
    let now = at(START, 1_000);
    let gate = gate_over(&ledger, &surroundings, now);
    register(&gate, now);
    let mut run =
        Run { gate, ledger, surroundings, now, shared: Vec::new(), guards: Vec::new(), seed: 0, messages: 0 };
    for step in data.chunks_exact(3).take(MOST_STEPS) {
        run.step(step[0], step[1], step[2]);
        run.check();
    }
}

impl Run {
    fn step(&mut self, what: u8, which: u8, with: u8) {
        self.seed += 1;
        let index = usize::from(which) % self.shared.len().max(1);
        match what {
            240..=251 => return self.renew(index, with),
            252.. => {
                self.take_back(|gate, _, now| gate.reset_clock(now), |_, _| true);
                return register(&self.gate, self.now);
            }
            _ => {}
        }
        match what % 18 {
            0 => self.offer(usize::from(which) % 2, with),
            1 => self.redeem(index, with),
            2 => self.attach(index, with),
            3 => self.permit(usize::from(which), with),
            4 => self.take_back(
                |gate, shared, now| {
                    shared
                        .get(index)
                        .map_or(Ok(()), |one| gate.revoke_ticket(&one.pairing.ticket, now).map(drop))
                },
                |at, _| at == index,
            ),
            5 => self.take_back(
                |gate, shared, now| {
                    shared
                        .get(index)
                        .map_or(Ok(()), |one| gate.revoke_credential(&one.pairing.credential, now).map(drop))
                },
                |at, _| at == index,
            ),
            6 => self.end(usize::from(which) % 2, false),
            7 => self.end(usize::from(which) % 2, true),
            8 => self.begin(usize::from(which) % 2),
            9 => {
                self.take_back(
                    |gate, _, now| gate.revoke_issuer(&issuer().public(), now).map(drop),
                    |_, _| true,
                );
                register(&self.gate, self.now);
            }
            10 => {
                self.take_back(|gate, _, now| gate.revoke_device(&device(), now).map(drop), |_, _| true);
                register(&self.gate, self.now);
            }
            11 => {
                self.take_back(|gate, _, now| gate.sync_devices(&[], now).map(drop), |_, _| true);
                register(&self.gate, self.now);
            }
            12 => self.confirm(index, with),
            13 => self.now = self.now.plus(Duration::seconds(i64::from(which) * i64::from(with).pow(2) / 8)),
            // the wall clock alone, back and forth
            14 => self.now.wall += Duration::seconds((i64::from(which) - 128) * i64::from(with)),
            15 => drop(
                (!self.guards.is_empty())
                    .then(|| self.guards.swap_remove(usize::from(which) % self.guards.len())),
            ),
            16 => self.gate.settle(self.now).unwrap(),
            _ => self.reopen(),
        }
    }

    fn offer(&mut self, session_index: usize, with: u8) {
        if self.shared.len() == MOST_PAIRINGS {
            return;
        }
        let terms = PairingTerms::default().with_valid_for(60 + 60 * u64::from(with)).unwrap();
        let terms = match with % 4 {
            0 => terms.with_confirmation(Confirmation::Required),
            1 => terms.with_ops(OpSet::only(Op::StreamOutput)).unwrap(),
            _ => terms.with_ticket_lifetime(60).unwrap(),
        };
        let id = session(SESSIONS[session_index]);
        let mut rng = CounterRng::new(self.seed);
        let mut time = self.now.timestamp();
        for _ in 0..2 {
            let pairing = issuer().pair(id.clone(), &terms, time, &mut rng).unwrap();
            match self.gate.offer(&device(), &pairing.offer, self.now) {
                Ok(receipt) => {
                    assert_eq!(receipt.ticket, pairing.ticket);
                    let again = self.gate.offer(&device(), &pairing.offer, self.now);
                    assert!(again.is_err(), "an offer is taken once");
                    self.shared.push(Shared {
                        pairing,
                        session: session_index,
                        holder: None,
                        credential: None,
                        dead: false,
                        renewed: false,
                        ends_at: None,
                    });
                    return;
                }
                Err(Denial::ClockSkew { agent_time }) => time = agent_time,
                Err(Denial::QuotaReached { .. } | Denial::SessionNotLive) => return,
                Err(denial) => panic!("{denial:?}"),
            }
        }
    }

    fn admit(&mut self, who: u8, payload: &[u8]) -> PeerAdmission {
        let holder = phone(who).public();
        // Each message is another.
        self.messages += 1;
        let mut message = [0; 32];
        message[..8].copy_from_slice(&self.messages.to_le_bytes());
        let peer = Peer::new(holder.as_bytes(), payload, message);
        self.gate.admit_peer(peer, self.now, &mut CounterRng::new(self.seed))
    }

    fn redeem(&mut self, index: usize, with: u8) {
        let who = 2 + with % PHONES;
        let Some(one) = self.shared.get(index) else { return };
        let (dead, holder) = (one.dead, one.holder);
        let payload = redeem_payload(&one.pairing.link, &phone(who));
        match self.admit(who, &payload) {
            PeerAdmission::PassThrough => panic!("taken for a device"),
            PeerAdmission::Admitted { reply, guard } => {
                assert!(!dead, "redeemed after it was revoked");
                assert!(holder.is_none_or(|first| first == who), "one ticket, two phones");
                let map = cbor::decode_payload(&reply).unwrap();
                let credential = CredentialBytes::new(cbor::bytes_of(&map, 12)).unwrap();
                let one = &mut self.shared[index];
                if let Some(before) = &one.credential {
                    assert!(one.renewed || *before == credential, "the same bytes for every retry");
                }
                one.holder = Some(who);
                one.credential = Some(credential);
                if with & 0x80 == 0 {
                    self.activate(index, guard);
                }
            }
            PeerAdmission::Refused { denial, .. } => match denial {
                Denial::ConfirmationPending => {
                    assert!(!dead, "waiting after it was revoked");
                    assert!(holder.is_none_or(|first| first == who), "one ticket, two phones");
                    self.shared[index].holder = Some(who);
                }
                // Both are refused from now on.
                Denial::TicketContested => self.shared[index].dead = true,
                Denial::Ledger(_) | Denial::PolicyDisagreement | Denial::PolicyFailed => {
                    panic!("{:?}", denial)
                }
                _ => {}
            },
        }
    }

    fn attach(&mut self, index: usize, with: u8) {
        let Some(Shared { credential: Some(credential), holder, dead, .. }) = self.shared.get(index) else {
            return;
        };
        let (who, holder, dead) = (2 + with % PHONES, *holder, *dead);
        let ops = OpSet::from_bits(u64::from(with >> 3)).unwrap();
        let payload = attach_payload(ops, credential.as_bytes());
        match self.admit(who, &payload) {
            PeerAdmission::Admitted { reply, guard } => {
                assert!(!dead, "attached after it was revoked");
                assert_eq!(holder, Some(who), "attached with another phone's credential");
                let map = cbor::decode_payload(&reply).unwrap();
                if map.iter().any(|(key, _)| *key == 12) {
                    let one = &mut self.shared[index];
                    assert!(one.renewed, "another credential that nobody asked for");
                    one.credential = Some(CredentialBytes::new(cbor::bytes_of(&map, 12)).unwrap());
                }
                self.activate(index, guard);
            }
            PeerAdmission::Refused { reply, .. } => {
                assert!(holder == Some(who) || reply.is_none(), "a thief is told nothing");
            }
            PeerAdmission::PassThrough => panic!("taken for a device"),
        }
    }

    fn activate(&mut self, index: usize, pending: PendingGuard) {
        if let Ok(guard) = pending.activate_after_first_frame(self.now) {
            let left = guard.expires_at().since(self.now.timestamp());
            let end = self.now.monotonic + Duration::seconds(i64::try_from(left).unwrap());
            let one = &mut self.shared[index];
            // A wall clock that went back makes `left` too long, never too short.
            one.ends_at = Some(one.ends_at.map_or(end, |before| before.max(end)));
            self.guards.push((index, guard, OpSet::ALL));
        }
    }

    fn permit(&mut self, which: usize, with: u8) {
        if self.guards.is_empty() {
            return;
        }
        let at = which % self.guards.len();
        let (index, guard, left) = &mut self.guards[at];
        let op = Op::ALL[usize::from(with) % Op::ALL.len()];
        let granted = guard.ops().contains(op);
        if guard.permit(op, self.now, || ()).is_ok() {
            let one = &self.shared[*index];
            assert!(granted && !one.dead, "permitted after it was revoked");
            assert!(left.contains(op), "permitted after it was narrowed");
            assert!(one.ends_at.is_some_and(|end| self.now.monotonic < end), "permitted after its end");
        }
    }

    fn renew(&mut self, index: usize, with: u8) {
        let Some(one) = self.shared.get(index) else { return };
        let Ok(ops) = OpSet::from_bits(u64::from(with)) else { return };
        let renewal = Renewal {
            credential: one.pairing.credential,
            ticket: one.pairing.ticket,
            session: session(SESSIONS[one.session]),
            ops,
            valid_for: 60 + 60 * u64::from(with),
        };
        let mut rng = CounterRng::new(self.seed);
        let mut time = self.now.timestamp();
        for _ in 0..2 {
            let Ok(message) = issuer().renew(renewal.clone(), time, &mut rng) else { return };
            match self.gate.renew(&device(), &message, self.now, &mut rng) {
                Ok(_) => {
                    let one = &mut self.shared[index];
                    assert!(!one.dead && one.holder.is_some(), "renewed after it was revoked");
                    one.renewed = true;
                    for (of, guard, left) in &mut self.guards {
                        if *of == index {
                            *left = left.intersection(ops);
                            assert!(guard.ops().is_subset_of(*left), "not narrowed at once");
                        }
                    }
                    return;
                }
                Err(Denial::ClockSkew { agent_time }) => time = agent_time,
                Err(Denial::Ledger(_) | Denial::Internal) => panic!("the ledger"),
                Err(_) => return,
            }
        }
    }

    /// Runs a revoking method; every pairing that `hit` names is dead from then on.
    fn take_back(
        &mut self,
        verb: impl FnOnce(&Gate, &[Shared], Now) -> Result<(), Denial>,
        hit: impl Fn(usize, &Shared) -> bool,
    ) {
        verb(&self.gate, &self.shared, self.now).unwrap();
        for (index, one) in self.shared.iter_mut().enumerate() {
            one.dead |= hit(index, one);
        }
    }

    fn end(&mut self, session_index: usize, for_good: bool) {
        let id = session(SESSIONS[session_index]);
        if for_good {
            self.surroundings.sessions().retain(|running| *running != id);
        }
        self.take_back(
            |gate, _, now| {
                let ended = if for_good { gate.end_session(&id, now) } else { gate.revoke_session(&id, now) };
                ended.map(drop)
            },
            |_, one| one.session == session_index,
        );
    }

    fn begin(&mut self, session_index: usize) {
        let id = session(SESSIONS[session_index]);
        let mut running = self.surroundings.sessions();
        if !running.contains(&id) {
            running.push(id);
        }
    }

    fn confirm(&mut self, index: usize, with: u8) {
        let Some(one) = self.shared.get(index) else { return };
        let who = 2 + with % PHONES;
        let confirmed = self.gate.confirm(&device(), &one.pairing.ticket, &phone(who).public(), self.now);
        if confirmed.is_ok() {
            assert!(!one.dead, "confirmed after it was revoked");
            assert_eq!(one.holder, Some(who), "confirmed a phone that never asked");
        }
    }

    /// The agent's process ends, its connections with it, and begins again over the same records.
    fn reopen(&mut self) {
        self.guards.clear();
        self.gate = gate_over(&self.ledger, &self.surroundings, self.now);
    }

    /// The invariants after every call.
    fn check(&mut self) {
        for (index, guard, _) in &mut self.guards {
            if self.shared[*index].dead {
                assert!(guard.check(self.now).is_err(), "a stream runs on after it was revoked");
            }
        }
        assert!(!self.gate.is_poisoned());
        let listings = listed(&self.gate, self.now);
        for one in &self.shared {
            let mine = listings.iter().filter(|listing| listing.ticket == one.pairing.ticket);
            for listing in mine {
                let live = matches!(
                    listing.state,
                    ListingState::Open | ListingState::Active | ListingState::Pending { .. }
                );
                assert!(!(live && one.dead), "{listing:?} is listed as live after it was revoked");
                if let Some(holder) = listing.holder {
                    assert_eq!(Some(holder), one.holder.map(|who| phone(who).public()));
                }
            }
        }
        let quotas = Quotas::default();
        for id in SESSIONS {
            let of_session = || listings.iter().filter(|listing| listing.session.as_str() == id);
            let open = of_session().filter(|listing| listing.state == ListingState::Open).count();
            assert!(open <= quotas.tickets_per_session as usize);
        }
    }
}
