//! The small parts that messages of OTLP are made of.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

/// Version of the semantic conventions whose names are used.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

pub(super) fn text(text: impl Into<String>) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(text.into())),
    }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Attributes, as they are collected. What is not known is not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.push(pair(key, Value::StringValue(value)));
        }
    }

    /// Names and values of those that are texts.
    pub(super) fn texts_of(&self) -> Vec<(String, String)> {
        let text = |one: &KeyValue| match one.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some((one.key.clone(), text.clone())),
            _ => None,
        };
        self.0.iter().filter_map(text).collect()
    }

    pub(super) fn optional(&mut self, key: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.0.push(pair(key, Value::IntValue(value)));
    }

    pub(super) fn texts(&mut self, key: &str, values: impl Iterator<Item = String>) {
        let values: Vec<_> = values.map(text).collect();
        if !values.is_empty() {
            self.0
                .push(pair(key, Value::ArrayValue(ArrayValue { values })));
        }
    }

    pub(super) fn resource(self) -> Resource {
        Resource {
            attributes: self.0,
            ..Resource::default()
        }
    }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "observer".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}
