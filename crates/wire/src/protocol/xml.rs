//! XML answers of awsQuery and ec2Query.

use crate::{
    fault::{Detail, Fault},
    shape::{Kind, Operation, ServiceSpec, Shape, TimeFormat},
    value::Value,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

pub(crate) const CONTENT_TYPE: &str = "text/xml;charset=utf-8";

/// Writes elements, escaping what they hold.
#[derive(Default)]
struct Writer(String);

impl Writer {
    fn element(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.open(name, None);
        inner(self);
        self.close(name);
    }

    fn open(&mut self, name: &str, namespace: Option<&str>) {
        self.0.push('<');
        self.0.push_str(name);
        if let Some(namespace) = namespace {
            self.0.push_str(" xmlns=\"");
            self.text(namespace);
            self.0.push('"');
        }
        self.0.push('>');
    }

    fn close(&mut self, name: &str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    /// Text with the characters that XML reserves escaped, and those that it forbids replaced.
    fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\r' => self.0.push_str("&#xD;"),
                '\n' | '\t' => self.0.push(c),
                c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
    }

    fn leaf(&mut self, name: &str, text: &str) {
        self.element(name, |xml| xml.text(text));
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

pub(crate) fn query_answer(
    spec: &ServiceSpec,
    operation: &Operation,
    value: &Value,
    request_id: &str,
) -> Vec<u8> {
    let mut xml = Writer::default();
    let root = format!("{}Response", operation.name);
    xml.open(&root, Some(spec.xml_namespace));
    if !operation.result_wrapper.is_empty() {
        xml.element(operation.result_wrapper, |xml| members(xml, operation.output, value));
    }
    xml.element("ResponseMetadata", |xml| xml.leaf("RequestId", request_id));
    xml.close(&root);
    xml.finish()
}

pub(crate) fn ec2_answer(
    spec: &ServiceSpec,
    operation: &Operation,
    value: &Value,
    request_id: &str,
) -> Vec<u8> {
    let mut xml = Writer("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned());
    let root = format!("{}Response", operation.name);
    xml.open(&root, Some(spec.xml_namespace));
    xml.leaf("requestId", request_id);
    members(&mut xml, operation.output, value);
    xml.close(&root);
    xml.finish()
}

fn members(xml: &mut Writer, shape: &Shape, value: &Value) {
    let (Kind::Structure(members), Value::Structure(values)) = (&shape.kind, value) else {
        unreachable!("an operation's output is a structure")
    };
    for (member, item) in members.iter().zip(values) {
        if let Some(item) = item {
            write(xml, member.xml, member.shape, item);
        }
    }
}

fn write(xml: &mut Writer, name: &str, shape: &Shape, value: &Value) {
    match (&shape.kind, value) {
        (_, Value::Boolean(on)) => xml.leaf(name, if *on { "true" } else { "false" }),
        (_, Value::Integer(number)) => xml.leaf(name, &number.to_string()),
        (_, Value::Double(number)) => xml.leaf(name, &number.to_string()),
        (_, Value::String(text)) => xml.leaf(name, text),
        (_, Value::Blob(bytes)) => xml.leaf(name, &BASE64.encode(bytes)),
        (Kind::Timestamp(TimeFormat::Epoch), Value::Timestamp(time)) => {
            xml.leaf(name, &time.seconds_f64().to_string());
        }
        (_, Value::Timestamp(time)) => xml.leaf(name, &time.rfc3339()),
        (Kind::List { member, item, flattened }, Value::List(items)) => {
            if *flattened {
                items.iter().for_each(|one| write(xml, name, member, one));
            } else {
                xml.element(name, |xml| items.iter().for_each(|one| write(xml, item, member, one)));
            }
        }
        (Kind::Map { key, value: member, names, flattened }, Value::Map(entries)) => {
            let entry = |xml: &mut Writer, wrapper: &str| {
                for (text, one) in entries {
                    xml.element(wrapper, |xml| {
                        write(xml, names.0, key, &Value::String(text.clone()));
                        write(xml, names.1, member, one);
                    });
                }
            };
            if *flattened {
                entry(xml, name);
            } else {
                xml.element(name, |xml| entry(xml, "entry"));
            }
        }
        (Kind::Structure(_), Value::Structure(_)) => {
            xml.element(name, |xml| members(xml, shape, value));
        }
        (_, value) => unreachable!("generated code gives values that fit: {value:?}"),
    }
}

pub(crate) fn query_fault(spec: Option<&ServiceSpec>, fault: &Fault, request_id: &str) -> Vec<u8> {
    let mut xml = Writer::default();
    xml.open("ErrorResponse", spec.map(|spec| spec.xml_namespace));
    xml.element("Error", |xml| {
        xml.leaf("Type", if fault.is_sender() { "Sender" } else { "Receiver" });
        xml.leaf("Code", &fault.code);
        xml.leaf("Message", &fault.message);
        for (name, detail) in &fault.details {
            match detail {
                Detail::Text(text) => xml.leaf(name, text),
                Detail::Number(number) => xml.leaf(name, &number.to_string()),
                Detail::List(values) => values.iter().for_each(|value| xml.leaf(name, value)),
            }
        }
    });
    xml.leaf("RequestId", request_id);
    xml.close("ErrorResponse");
    xml.finish()
}

pub(crate) fn ec2_fault(fault: &Fault, request_id: &str) -> Vec<u8> {
    let mut xml = Writer("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned());
    xml.element("Response", |xml| {
        xml.element("Errors", |xml| {
            xml.element("Error", |xml| {
                xml.leaf("Code", &fault.code);
                xml.leaf("Message", &fault.message);
            });
        });
        xml.leaf("RequestID", request_id);
    });
    xml.finish()
}
