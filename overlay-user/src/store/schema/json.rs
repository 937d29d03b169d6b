//! The fields of a JSON value, as Go's decoder finds them. Errors name the field by its whole path.

use overlay_common::Vni;
use serde_json::{Map, Value};

pub(super) fn object(value: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(value) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("the value is no JSON object: {\"PublicIP\":…} or the like is expected".into()),
        Err(error) => Err(format!("the value is no JSON ({error})")),
    }
}

/// A field by the last part of its path, whatever its case; `null` is as good as absent.
fn field<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let value = map
        .get(name)
        .or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))?;
    (!value.is_null()).then_some(value)
}

pub(super) fn text<'a>(map: &'a Map<String, Value>, path: &str) -> Result<Option<&'a str>, String> {
    field(map, path)
        .map(|value| value.as_str().ok_or_else(|| format!("{path} is {value}: text is expected")))
        .transpose()
}

pub(super) fn child<'a>(
    map: &'a Map<String, Value>,
    path: &str,
) -> Result<Option<&'a Map<String, Value>>, String> {
    field(map, path)
        .map(|value| value.as_object().ok_or_else(|| format!("{path} is {value}: an object is expected")))
        .transpose()
}

pub(super) fn list<'a>(map: &'a Map<String, Value>, path: &str) -> Result<&'a [Value], String> {
    let Some(value) = field(map, path) else { return Ok(&[]) };
    let values =
        value.as_array().ok_or_else(|| format!("{path} is {value}: a list of addresses is expected"))?;
    Ok(values)
}

pub(super) fn vni(map: &Map<String, Value>, path: &str) -> Result<Option<Vni>, String> {
    let Some(value) = field(map, path) else { return Ok(None) };
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .and_then(|number| Vni::new(number).ok())
        .map(Some)
        .ok_or_else(|| format!("{path} is {value}: a number from 1 to {} is expected", Vni::MAX))
}

/// Port 0 is flannel's way to say "the default".
pub(super) fn port(map: &Map<String, Value>, path: &str) -> Result<Option<u16>, String> {
    let Some(value) = field(map, path) else { return Ok(None) };
    match value.as_u64().map(u16::try_from) {
        Some(Ok(0)) => Ok(None),
        Some(Ok(port)) => Ok(Some(port)),
        _ => Err(format!("{path} is {value}: a number from 1 to 65535 is expected")),
    }
}

pub(super) fn number(map: &Map<String, Value>, path: &str) -> Result<Option<u32>, String> {
    let Some(value) = field(map, path) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map(Some).ok_or_else(|| format!("{path} is {value}: a number from 0 to {} is expected", u32::MAX))
}

pub(super) fn flag(map: &Map<String, Value>, path: &str) -> Result<Option<bool>, String> {
    field(map, path)
        .map(|value| value.as_bool().ok_or_else(|| format!("{path} is {value}: true or false is expected")))
        .transpose()
}
