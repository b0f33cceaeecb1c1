//! JSON of which there is one reading: a name that stands twice in one object is refused, wherever it is (RFC 7519 section 4 allows it).
//!
//! Two programs that read the same token must not see two tokens. It knows JSON, not what names mean.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads one object, and nothing after it.
pub(super) fn object(text: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(text) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(_) => Err("it is not a JSON object".into()),
        Err(error) => Err(error.to_string()),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Strict)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            // The name may be the sender's, but it is quoted from a token of his own.
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the name {name:?} stands twice in an object")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading() {
        for good in [r"{}", r#" {"a":1,"b":{"a":[{"a":null},{"a":true}]},"c":-1.5e3} "#, r#"{"A":1,"a":2}"#] {
            assert_eq!(Value::Object(object(good.as_bytes()).unwrap()), serde_json::from_str::<Value>(good).unwrap());
        }
        for (bad, complaint) in [
            (r#"{"a":1,"a":1}"#, "\"a\" stands twice"),
            (r#"{"a":1,"\u0061":2}"#, "\"a\" stands twice"),
            (r#"{"x":[{"y":{"a":1,"a":2}}]}"#, "\"a\" stands twice"),
            ("[]", "not a JSON object"),
            ("null", "not a JSON object"),
            ("", "EOF"),
            ("{} {}", "trailing"),
            ("{'a':1}", "key must be a string"),
            (r#"{"a":1e999}"#, "out of range"),
            ("{\"a\":\"\u{1}\"}", "control character"),
        ] {
            assert!(object(bad.as_bytes()).as_ref().is_err_and(|why| why.contains(complaint)), "{bad}: {:?}", object(bad.as_bytes()));
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
        assert!(object(format!("{}{}{}", r#"{"a":"#.repeat(500), 1, "}".repeat(500)).as_bytes()).is_err());
    }
}
