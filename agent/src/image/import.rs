//! `docker import`: a tar of files becomes an image of one layer.

use std::io::Read;

use ketch_engine_api::image::ImageConfig;
use serde_json::json;

use super::Images;
use super::digest::Digest;
use super::layers::Promised;
use super::reference::Reference;
use super::spec::Platform;
use super::state::ImageRecord;
use super::step::encoded;
use crate::error::Result;
use crate::timestamp::Timestamp;

/// How to import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The name that it gets.
    pub reference: Option<Reference>,
    /// What it runs on.
    pub platform: Option<Platform>,
    /// Why.
    pub message: String,
    /// What its containers are started with.
    pub config: ImageConfig,
}

impl Images {
    /// Reads a tar, compressed or not, and makes an image of it. Blocks.
    ///
    /// # Errors
    /// A hostile tar, the disk.
    pub fn import(&self, stream: impl Read + Send, options: &ImportOptions) -> Result<Digest> {
        let layer = self.add_layer(stream, &Promised::default())?;
        let platform = options.platform.clone().unwrap_or_else(Platform::of_host);
        let created = Timestamp::now();
        let mut file = json!({
            "created": created,
            "docker_version": "28.5.0",
            "architecture": platform.architecture,
            "os": platform.os,
            "comment": options.message,
            "config": options.config,
            "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
            "history": [{ "created": created, "comment": options.message }],
        });
        if let Some(variant) = platform.variant {
            file["variant"] = json!(variant);
        }
        let bytes = encoded(&file)?;
        let (image, _) =
            self.add_named_image(&bytes, ImageRecord::default(), options.reference.as_slice())?;
        if let Some(name) = &options.reference {
            self.tag(&image, name)?;
        }
        self.publish("import", &image, &image.id.to_string());
        Ok(image.id)
    }
}
