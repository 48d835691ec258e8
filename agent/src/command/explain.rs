//! `ketchd cluster explain SERVICE|TASK|NODE`.

use hyper::Method;
use ketch_cluster::explain::Explained;

use super::client::segment;
use super::{Asked, CommandError, Format};

pub(super) fn answer(asked: &Asked) -> Result<String, CommandError> {
    let path = format!("/cluster/explain/{}", segment(asked.operand("explain")?));
    let body = asked.host.ask(Method::GET, &path, Vec::new())?;
    let unreadable = |error: serde_json::Error| CommandError::Unreadable(error.to_string());
    let explained: Explained = serde_json::from_slice(&body).map_err(unreadable)?;
    match asked.format {
        Format::Text => Ok(explained.to_string()),
        Format::Json => serde_json::to_string_pretty(&explained).map(|text| text + "\n").map_err(unreadable),
    }
}
