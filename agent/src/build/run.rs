//! A build, from the request's context to the image's names: stage by stage, step by step.

use std::io::Read;
use std::sync::Arc;

use ketch_engine_api::container::Config;

use super::cache::Cache;
use super::container::{Containers, short};
use super::output::Output;
use super::source::Source;
use super::{Failure, Options, ignore, untar};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::dockerfile::args::Args;
use crate::dockerfile::dispatch::State;
use crate::dockerfile::parse::{self, Dockerfile, Instruction, Stage, Step};
use crate::dockerfile::words::{Substitution, quoted};
use crate::error::{Error, Kind, Result};
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::registry::pull::PullOptions;
use crate::image::spec::Platform;
use crate::image::{self, Image};

/// The largest Dockerfile, in bytes.
const LARGEST: u64 = 16 << 20;
/// Instructions of one build, and triggers of one image: each makes an image that tells of all before it.
const MOST_STEPS: usize = 1000;
const SCRATCH: &str = "scratch";
/// What processes find programs by where the image says nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds an image of a context, which is read to its end, and tells how it goes.
///
/// # Errors
/// What fails before anything was told; what fails later is told.
pub async fn build(
    daemon: &Arc<Daemon>,
    options: Options,
    body: impl Read + Send + 'static,
    progress: &Progress,
) -> Result<()> {
    let output = Output::new(progress.clone(), options.quiet, options.aux);
    let mut build = Build {
        containers: Containers::new(daemon, &options),
        daemon: Arc::clone(daemon),
        output: Arc::clone(&output),
        context: None,
        done: Vec::new(),
        options,
    };
    match build.run(body).await {
        Ok(id) => {
            output.succeed(&id).await;
            Ok(())
        }
        Err(failure) => output.fail(failure).await.map_err(|failure| failure.error),
    }
}

pub(super) struct Build {
    pub(super) daemon: Arc<Daemon>,
    pub(super) options: Options,
    pub(super) output: Arc<Output>,
    pub(super) context: Option<Arc<Source>>,
    pub(super) containers: Containers,
    /// The stages that are built: names and images.
    pub(super) done: Vec<(String, Option<Arc<Image>>)>,
}

/// A stage that is being built.
pub(super) struct Present {
    pub(super) state: State,
    /// What the next step is done to; nothing in front of the first of `FROM scratch`.
    pub(super) image: Option<Arc<Image>>,
    pub(super) cache: Cache,
    pub(super) escape: char,
}

impl Build {
    /// Gives the image's id.
    async fn run(&mut self, body: impl Read + Send + 'static) -> Result<String, Failure> {
        let (daemon, name) = (Arc::clone(&self.daemon), self.options.dockerfile.clone());
        let (source, mut file) = blocking(move || open(&daemon, &name, body)).await?;
        self.context = Some(Arc::new(source));
        if !self.options.target.is_empty() {
            let target = self.options.target.to_lowercase();
            let at = file.stages.iter().position(|stage| stage.name == target).ok_or_else(|| {
                Error::invalid(format!("target stage {} could not be found", quoted(&self.options.target)))
            })?;
            file.stages.truncate(at + 1);
        }
        if let Some(last) = file.stages.last_mut() {
            last.steps.extend(self.options.labels.iter().map(|(name, value)| Step {
                code: format!("LABEL {name}={value}"),
                instruction: Instruction::FixedLabel(name.clone(), value.clone()),
            }));
        }
        for warning in &file.warnings {
            self.output.print_error(&format!("[WARNING]: {warning}\n")).await;
        }
        if !file.warnings.is_empty() {
            let text = "[WARNING]: Empty continuation lines will become errors in a future release.\n";
            self.output.print_error(text).await;
        }
        let id = self.stages(&file).await?;
        self.output.print(&format!("Successfully built {}\n", short(&id.id.to_string()))).await;
        for name in self.options.tags.clone() {
            let (daemon, image, tag) = (Arc::clone(&self.daemon), Arc::clone(&id), name.clone());
            blocking(move || daemon.images.tag(&image, &tag)).await?;
            self.output.print(&format!("Successfully tagged {}\n", name.familiar())).await;
        }
        Ok(id.id.to_string())
    }

    async fn stages(&mut self, file: &Dockerfile) -> Result<Arc<Image>, Failure> {
        let steps: usize = file.stages.iter().map(|stage| stage.steps.len() + 1).sum();
        let total = file.before.len() + steps;
        check_steps(total)?;
        let mut number = 1;
        let mut args = Args::new(self.options.args.clone());
        for step in &file.before {
            self.headline(&mut number, total, &step.code).await;
            let Instruction::Arg(given) = &step.instruction else { continue };
            let variables = args.allowed();
            let how = Substitution::new(file.escape, &variables);
            for (name, value) in given {
                let word = |text: &str| how.word(text).map_err(Error::invalid);
                let value = value.as_deref().map(word).transpose()?;
                args.add_before(&word(name)?, value.as_deref());
            }
        }
        let mut last = None;
        for stage in &file.stages {
            if !stage.name.is_empty() && self.done.iter().any(|(name, _)| *name == stage.name) {
                let text = format!("{} stage name already used", stage.name);
                return Err(Error::new(Kind::Internal, text).into());
            }
            self.headline(&mut number, total, &stage.code).await;
            let mut present = self.begin(stage, args.for_stage(), file.escape).await?;
            self.arrow(&present).await;
            for step in &stage.steps {
                self.headline(&mut number, total, &step.code).await;
                self.step(&mut present, &step.instruction).await?;
                self.arrow(&present).await;
            }
            if let Some(image) = &present.image {
                self.output.image(&image.id.to_string()).await;
            }
            args.merge(&present.state.args);
            self.done.push((stage.name.clone(), present.image.clone()));
            last = present.image;
        }
        let unused = args.unused();
        if !unused.is_empty() {
            let text = format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" "));
            self.output.print(&text).await;
        }
        let none = || Error::new(Kind::Internal, "No image was generated. Is your Dockerfile empty?");
        Ok(last.ok_or_else(none)?)
    }

    async fn headline(&self, number: &mut usize, total: usize, code: &str) {
        self.output.headline(&format!("Step {number}/{total} : {code}")).await;
        *number += 1;
    }

    async fn arrow(&self, present: &Present) {
        let id = present.image.as_ref().map(|image| image.id.short()).unwrap_or_default();
        self.output.print(&format!(" ---> {id}\n")).await;
    }

    /// `FROM`, with the triggers of its image.
    async fn begin(&mut self, stage: &Stage, args: Args, escape: char) -> Result<Present, Failure> {
        let variables = args.for_from();
        let how = Substitution::new(escape, &variables);
        let word = |text: &str| how.word(text).map_err(|error| Error::new(Kind::Internal, error));
        let mut platform = self.options.platform.clone();
        if !stage.platform.is_empty() {
            let text = word(&stage.platform)?;
            let parsed = Platform::parse(&text);
            platform = Some(parsed.ok_or_else(|| {
                Error::invalid(format!("failed to parse platform {text}: {text:?}: cannot parse platform specifier: invalid argument"))
            })?);
        }
        let name = word(&stage.base)?;
        if name.is_empty() {
            let text = format!("base name ({}) should not be blank", stage.base);
            return Err(Error::new(Kind::Internal, text).into());
        }
        let built = self.done.iter().find(|(done, _)| !done.is_empty() && *done == name.to_lowercase());
        let image = match built {
            Some((_, image)) => image.clone(),
            None if name == SCRATCH => None,
            None => Some(self.image(&name, platform.as_ref()).await?),
        };
        let mut config = match &image {
            Some(image) => self.daemon.base(&image.id.to_string())?.config,
            None => Config::default(),
        };
        let env = config.env.get_or_insert_default();
        if !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.push(PATH.to_owned());
        }
        config.image = image.as_ref().map(|image| image.id.to_string()).unwrap_or_default();
        let triggers = config.on_build.take().unwrap_or_default();
        let wanted = self.options.platform.clone().unwrap_or_else(Platform::of_host);
        let cache = Cache::new(&self.daemon.images, &self.options.cache_from, wanted, !self.options.no_cache);
        let state = State { config, args, ..State::default() };
        let mut present = Present { state, image, cache, escape };
        check_steps(triggers.len())?;
        if !triggers.is_empty() {
            let many = if triggers.len() > 1 { "s" } else { "" };
            self.output.headline(&format!("# Executing {} build trigger{many}", triggers.len())).await;
        }
        for trigger in &triggers {
            self.step(&mut present, &parse::trigger(trigger)?.instruction).await?;
        }
        Ok(present)
    }

    /// An image of a name, pulled where it is not here.
    pub(super) async fn image(&self, name: &str, platform: Option<&Platform>) -> Result<Arc<Image>> {
        let find = || match platform {
            Some(platform) => self.daemon.images.find_for(name, platform),
            None => self.daemon.images.find(name),
        };
        if !self.options.pull {
            match find() {
                Err(error) if error.kind == Kind::NotFound => {}
                found => return found,
            }
        }
        let reference: Reference = name
            .parse()
            .map_err(|error: image::reference::ReferenceError| Error::invalid(error.to_string()))?;
        let reference = reference.with_default_tag();
        let credentials = self.options.logins.of(&reference);
        let options = PullOptions { reference, platform: platform.cloned(), credentials };
        let progress = self.output.steps().await;
        self.daemon.images.pull(&options, &progress).await?;
        find()
    }

    async fn step(&mut self, present: &mut Present, instruction: &Instruction) -> Result<(), Failure> {
        let done = self.dispatch(present, instruction).await;
        if self.options.force_remove || (self.options.remove && done.is_ok()) {
            self.containers.remove_all(&self.output).await;
        }
        done?;
        present.state.config.image =
            present.image.as_ref().map(|image| image.id.to_string()).unwrap_or_default();
        Ok(())
    }
}

/// The context and its Dockerfile.
fn open(daemon: &Daemon, name: &str, body: impl Read) -> Result<(Source, Dockerfile)> {
    let source = Source::of_context(&daemon.images, body)?;
    let read = |path: &str| -> Result<Option<String>> {
        let failed = |error: std::io::Error| {
            Error::new(Kind::Internal, format!("open {path}: {}", untar::words(&error)))
        };
        let resolved = source.tree.resolve(path.as_bytes()).map_err(failed)?;
        let Some(file) = source.tree.read(&resolved).map_err(failed)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let _count = file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    };
    let missing = || Error::new(Kind::Internal, format!("Cannot locate specified Dockerfile: {name}"));
    let (path, text) = match read(name)? {
        Some(text) => (name.to_owned(), text),
        None if name == "Dockerfile" => ("dockerfile".to_owned(), read("dockerfile")?.ok_or_else(missing)?),
        None => return Err(missing()),
    };
    let file = parse::parse(&text, &path)?;
    if let Some(ignored) = read(".dockerignore")? {
        for hidden in
            [".dockerignore", path.as_str()].iter().filter(|name| ignore::leaves_out(&ignored, name))
        {
            let gone =
                source.tree.resolve_parent(hidden.as_bytes()).and_then(|path| source.tree.remove(&path));
            gone.map_err(|error| {
                Error::internal(format_args!("taking {hidden} out of the context"), &error)
            })?;
        }
    }
    Ok((source, file))
}

fn check_steps(count: usize) -> Result<()> {
    if count > MOST_STEPS {
        return Err(Error::invalid(format!("a build may have {MOST_STEPS} steps, not {count}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_bounded() {
        assert!(check_steps(MOST_STEPS).is_ok());
        assert!(check_steps(MOST_STEPS + 1).unwrap_err().message.ends_with("not 1001"));
    }
}
