//! The same five caveats as a Cedar policy, decided by the crate `cedar-policy` for each of the five operations. There
//! is no token in it: nothing is read from a phone, and no signature is verified. The policy is parsed beforehand.

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, RestrictedExpression,
};
use sessioncap::OpSet;

use crate::attach::Caveats;

pub struct Peer {
    authorizer: Authorizer,
    policy: PolicySet,
    principal: EntityUid,
    resource: EntityUid,
    actions: Vec<EntityUid>,
    agent: String,
    ticket: String,
}

const PHONE: &str = "phone";
const NOW: i64 = 1_780_000_100;
const END: i64 = 1_780_043_200;

impl Peer {
    pub fn new(caveats: Caveats) -> Self {
        let [agent, session, ticket, ..] = caveats.all;
        let actions: Vec<_> = OpSet::COMPANION.iter().map(|op| format!("Action::{:?}", op.name())).collect();
        let policy = format!(
            "permit(principal == Phone::{PHONE:?}, action in [{}], resource == Session::{session:?})
             when {{ context.agent == {agent:?} && context.ticket == {ticket:?} && context.time < {END} }};",
            actions.join(", ")
        );
        let peer = Self {
            authorizer: Authorizer::new(),
            policy: policy.parse().unwrap(),
            principal: format!("Phone::{PHONE:?}").parse().unwrap(),
            resource: format!("Session::{session:?}").parse().unwrap(),
            actions: actions.iter().map(|action| action.parse().unwrap()).collect(),
            agent,
            ticket,
        };
        peer.decide();
        let action = &peer.actions[0];
        let interrupt = r#"Action::"interrupt""#.parse().unwrap();
        let other = r#"Session::"another""#.parse().unwrap();
        assert!(!peer.allows(&interrupt, &peer.resource, &peer.ticket, NOW));
        assert!(!peer.allows(action, &other, &peer.ticket, NOW));
        assert!(!peer.allows(action, &peer.resource, "ticket = another", NOW));
        assert!(!peer.allows(action, &peer.resource, &peer.ticket, END));
        peer
    }

    pub fn decide(&self) {
        assert!(self.actions.iter().all(|action| self.allows(action, &self.resource, &self.ticket, NOW)));
    }

    fn allows(&self, action: &EntityUid, session: &EntityUid, ticket: &str, time: i64) -> bool {
        let context = Context::from_pairs([
            ("agent".to_owned(), RestrictedExpression::new_string(self.agent.clone())),
            ("ticket".to_owned(), RestrictedExpression::new_string(ticket.to_owned())),
            ("time".to_owned(), RestrictedExpression::new_long(time)),
        ]);
        let (principal, action, resource) = (self.principal.clone(), action.clone(), session.clone());
        let request = Request::new(principal, action, resource, context.unwrap(), None).unwrap();
        let response = self.authorizer.is_authorized(&request, &self.policy, &Entities::empty());
        response.decision() == Decision::Allow
    }
}
