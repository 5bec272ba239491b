//! The shapes of JSON values, by which they are checked and made anew.
//!
//! Reading what a phone sent, a key that the shape does not have is refused. Writing what an agent sent, it is left
//! out. `_meta` is left out both times: nobody promises what is in it.

use crate::acp::message::RequestId;
use crate::json::{Json, Number};

/// The form of a value.
pub(super) enum Shape {
    /// Anything. It is data, and nobody takes a decision from it.
    Any,
    Text,
    Bool,
    Integer,
    /// An integer that is not negative.
    Count,
    Number,
    /// Only `null`: the key is known and must not be used.
    Null,
    /// A list without values.
    EmptyList,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// The id of the phone's session, which is exchanged for the other side's name of it.
    OwnSession,
    /// The id of a request.
    RequestId,
    List(&'static Shape),
    /// An object with any keys.
    Map(&'static Shape),
    Object(&'static [Field]),
    /// An object in which this key names one of the variants.
    Tagged(&'static str, &'static [(&'static str, &'static [Field])]),
    /// The first that fits.
    Either(&'static [Shape]),
}

/// A key of an object.
pub(super) struct Field {
    key: &'static str,
    shape: Shape,
    required: bool,
}

/// A key that must be there.
pub(super) const fn need(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, required: true }
}

/// A key that may be missing.
pub(super) const fn may(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, required: false }
}

/// Why a value is not of its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    Shape,
    OtherSession,
}

/// Makes values anew.
#[derive(Clone, Copy)]
pub(super) struct Rebuild<'a> {
    from_phone: bool,
    /// The session's name where the value comes from.
    here: &'a str,
    /// Its name where the value goes.
    there: &'a str,
}

impl<'a> Rebuild<'a> {
    /// Of what a phone sent. The session keeps the phone's name, so that it cannot go to the agent by mistake.
    pub(super) fn from_phone(session: &'a str) -> Self {
        Self { from_phone: true, here: session, there: session }
    }

    /// Of what the agent sent.
    pub(super) fn to_phone(upstream: &'a str, session: &'a str) -> Self {
        Self { from_phone: false, here: upstream, there: session }
    }

    pub(super) fn value(self, shape: &Shape, json: &Json) -> Result<Json, Misfit> {
        let fits = match (shape, json) {
            (Shape::Any, _) => true,
            (Shape::Text, Json::Text(_)) | (Shape::Bool, Json::Bool(_)) | (Shape::Null, Json::Null) => true,
            (Shape::Integer, Json::Number(Number::Integer(_) | Number::Large(_))) => true,
            (Shape::Count, Json::Number(number)) => match number {
                Number::Integer(number) => *number >= 0,
                Number::Large(_) => true,
                Number::Float(_) => false,
            },
            (Shape::Number, Json::Number(_)) => true,
            (Shape::EmptyList, Json::List(values)) => values.is_empty(),
            (Shape::Choice(texts), Json::Text(text)) => texts.contains(&text.as_str()),
            (Shape::RequestId, json) => RequestId::from_json(json).is_some(),
            (Shape::OwnSession, Json::Text(text)) => {
                return if text == self.here {
                    Ok(Json::text(self.there))
                } else {
                    Err(Misfit::OtherSession)
                };
            }
            (Shape::List(shape), Json::List(values)) => return self.list(shape, values),
            (Shape::Map(shape), Json::Object(entries)) => {
                let entries: Result<Vec<_>, _> =
                    entries.iter().map(|(key, value)| Ok((key.clone(), self.value(shape, value)?))).collect();
                return entries.map(Json::Object);
            }
            (Shape::Object(fields), Json::Object(entries)) => return self.object(None, fields, entries),
            (Shape::Tagged(tag, variants), Json::Object(entries)) => {
                let named = json.get(tag).and_then(Json::as_text).ok_or(Misfit::Shape)?;
                let variant = variants.iter().find(|(name, _)| *name == named).ok_or(Misfit::Shape)?;
                return self.object(Some((tag, variant.0)), variant.1, entries);
            }
            (Shape::Either(shapes), json) => {
                let first = shapes.iter().find_map(|shape| self.value(shape, json).ok());
                return first.ok_or(Misfit::Shape);
            }
            _ => false,
        };
        if fits { Ok(json.clone()) } else { Err(Misfit::Shape) }
    }

    fn list(self, shape: &Shape, values: &[Json]) -> Result<Json, Misfit> {
        let rebuilt = values.iter().map(|value| self.value(shape, value));
        if self.from_phone {
            return rebuilt.collect::<Result<_, _>>().map(Json::List);
        }
        Ok(Json::List(rebuilt.filter_map(Result::ok).collect()))
    }

    fn object(
        self,
        tag: Option<(&str, &str)>,
        fields: &[Field],
        entries: &[(String, Json)],
    ) -> Result<Json, Misfit> {
        let known = |key: &str| {
            key == "_meta"
                || tag.is_some_and(|(tag, _)| tag == key)
                || fields.iter().any(|field| field.key == key)
        };
        let mut rebuilt = Vec::new();
        rebuilt.extend(tag.map(|(tag, name)| (tag.to_owned(), Json::text(name))));
        for field in fields {
            let given = entries.iter().find(|(key, _)| key == field.key).map(|(_, value)| value);
            let value = match given {
                None if field.required => return Err(Misfit::Shape),
                None => continue,
                // To a phone `null` means that a value is no more. In the place of a list it is refused: readers
                // differ on what that is.
                Some(Json::Null) if !field.required && !matches!(field.shape, Shape::EmptyList) => {
                    if self.from_phone {
                        continue;
                    }
                    Json::Null
                }
                Some(value) => match self.value(&field.shape, value) {
                    Ok(value) => value,
                    Err(Misfit::Shape) if !field.required && !self.from_phone => continue,
                    Err(misfit) => return Err(misfit),
                },
            };
            rebuilt.push((field.key.to_owned(), value));
        }
        if self.from_phone && !entries.iter().all(|(key, _)| known(key)) {
            return Err(Misfit::Shape);
        }
        Ok(Json::Object(rebuilt))
    }
}
