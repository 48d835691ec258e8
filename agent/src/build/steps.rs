//! What each instruction does: to the stage's settings, by a container, or by files that are copied; and its image.

use std::sync::Arc;

use ketch_engine_api::container::{Config, HealthConfig};

use super::container::short;
use super::copy::{self, Copying};
use super::run::{Build, Present};
use super::source::{Info, Source};
use super::tree::Tree;
use super::{Failure, sums, untar};
use crate::blocking::blocking;
use crate::dockerfile::dispatch::{command_line, shell};
use crate::dockerfile::parse::{Command, Copy, Instruction};
use crate::dockerfile::words::Substitution;
use crate::engine::image_config;
use crate::error::{Error, Kind, Result};
use crate::image;
use crate::image::spec::Platform;

const NEEDS_BUILDKIT: &str = "requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled";

impl Build {
    pub(super) async fn dispatch(
        &mut self,
        present: &mut Present,
        instruction: &Instruction,
    ) -> Result<(), Failure> {
        let env = present.state.config.env.clone().unwrap_or_default();
        let variables = [env.as_slice(), &present.state.args.beside(&env)].concat();
        let how = Substitution::new(present.escape, &variables);
        let instruction = instruction.expanded(&how).map_err(Error::invalid)?;
        match &instruction {
            Instruction::Run(command, flags) => return self.run_command(present, command, flags).await,
            Instruction::Workdir(path) => return Ok(self.workdir(present, path).await?),
            Instruction::Copy(copy) => return Ok(self.copy(present, copy, "COPY").await?),
            Instruction::Add(copy) => return Ok(self.copy(present, copy, "ADD").await?),
            _ => {}
        }
        let Some(change) = present.state.apply(&instruction)? else { return Ok(()) };
        if !change.note.is_empty() {
            self.output.print(&change.note).await;
        }
        let config = with_comment(&present.state.config, &["#(nop) ", &change.comment]);
        if self.probe(present, &config).await? {
            return Ok(());
        }
        let id = self.containers.create(config.clone(), &self.options, &self.output).await?;
        let config = as_created(present, config, &id);
        Ok(self.commit(present, id, config).await?)
    }

    async fn run_command(
        &mut self,
        present: &mut Present,
        command: &Command,
        flags: &[String],
    ) -> Result<(), Failure> {
        if let Some(flag) = flags.first() {
            return Err(Error::new(Kind::Internal, format!("the --{flag} option {NEEDS_BUILDKIT}")).into());
        }
        let own = &present.state.config;
        let words = command_line(command, own);
        let env = own.env.clone().unwrap_or_default();
        let variables = present.state.args.beside(&env);
        let known = present.state.args.with_command(&variables, &words);
        let entrypoint =
            |none: Option<Vec<String>>| if known.is_empty() { own.entrypoint.clone() } else { none };
        let probed = Config {
            cmd: Some(known.clone()),
            entrypoint: entrypoint(None),
            args_escaped: false,
            ..own.clone()
        };
        let config = Config {
            cmd: Some(words.clone()),
            entrypoint: entrypoint(Some(vec![String::new()])),
            env: Some([env, variables].concat()),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            args_escaped: false,
            ..own.clone()
        };
        if self.probe(present, &probed).await? {
            return Ok(());
        }
        let id = self.containers.create(config, &self.options, &self.output).await?;
        self.containers.run(&id, &words.join(" "), &self.output).await?;
        Ok(self.commit(present, id, probed).await?)
    }

    async fn workdir(&mut self, present: &mut Present, path: &str) -> Result<()> {
        let path = present.state.enter(path)?;
        let comment = format!("#(nop) WORKDIR {path}");
        let config = with_comment(&present.state.config, &[&comment]);
        if self.probe(present, &config).await? {
            return Ok(());
        }
        let id = self.containers.create(config.clone(), &self.options, &self.output).await?;
        let (daemon, container) = (Arc::clone(&self.daemon), id.clone());
        blocking(move || {
            let failed = |error: std::io::Error| {
                Error::new(Kind::Internal, format!("Cannot mkdir: {path}: {}", untar::words(&error)))
            };
            let root = daemon.images.writable(&container)?;
            let tree = Tree::new(root, daemon.images.limits()?).of_users(daemon.images.ids());
            let folder = tree.resolve(path.as_bytes()).map_err(failed)?;
            tree.make_folders(&folder, (0, 0)).map(drop).map_err(failed)
        })
        .await?;
        let config = as_created(present, config, &id);
        self.commit(present, id, config).await
    }

    async fn copy(&mut self, present: &mut Present, asked: &Copy, name: &'static str) -> Result<()> {
        let internal = |text: String| Error::new(Kind::Internal, text);
        if !asked.mode.is_empty() {
            return Err(internal(format!("the --chmod option {NEEDS_BUILDKIT}")));
        }
        let source = match asked.from.as_str() {
            "" => self.context.clone().ok_or_else(|| internal("missing build context".to_owned()))?,
            from => {
                let found = self.source_of(from).await;
                found.map_err(|error| {
                    Error::new(error.kind, format!("invalid from flag value {from}: {}", error.message))
                })?
            }
        };
        let (sources, finding) = (asked.sources.clone(), Arc::clone(&source));
        let infos = blocking(move || find(&finding, &sources, name)).await?;
        let infos = infos.as_slice();
        if infos.len() > 1 && !asked.destination.ends_with('/') {
            return Err(internal(format!(
                "When using {name} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let sum = match infos {
            [one] => one.sum.clone(),
            _ => sums::of_all("multi", &infos.iter().map(|info| info.sum.clone()).collect::<Vec<_>>()),
        };
        let owner = if asked.owner.is_empty() { String::new() } else { format!("--chown={} ", asked.owner) };
        let comment = format!("#(nop) {name} {owner}{sum} in {} ", asked.destination);
        let config = with_comment(&present.state.config, &[&comment]);
        if self.probe(present, &config).await? {
            return Ok(());
        }
        let how = Copying {
            destination: copy::destination(&present.state.config.working_dir, &asked.destination),
            owner: None,
            unpacks: name == "ADD",
        };
        let keeps = !asked.from.is_empty();
        let (daemon, step) = (Arc::clone(&self.daemon), self.done_by(present, "", &config)?);
        let (infos, owner, parent) = (infos.to_vec(), asked.owner.clone(), present.image.clone());
        let image = blocking(move || {
            let work = daemon.images.work_on(parent.as_deref())?;
            let root =
                work.root().try_clone().map_err(|error| Error::internal("opening an image", &error))?;
            let mut target = Tree::new(root, daemon.images.limits()?).of_users(daemon.images.ids());
            let owner = match owner.as_str() {
                "" if keeps => None,
                "" => Some((0, 0)),
                text => Some(copy::owner(&target, text)?),
            };
            let how = Copying { owner, ..how };
            infos.iter().try_for_each(|info| copy::copy(&source, info, &mut target, &how))?;
            drop(target);
            daemon.images.add_step_of(&step, &work.upper())
        })
        .await?;
        present.image = Some(image);
        Ok(())
    }

    /// What `--from` names: a stage by its name or number, or an image.
    async fn source_of(&self, from: &str) -> Result<Arc<Source>> {
        let named = self.done.iter().find(|(name, _)| !name.is_empty() && *name == from.to_lowercase());
        let image = match (named, from.parse::<i64>()) {
            (Some((_, image)), _) => image.clone(),
            (None, Ok(number)) => {
                let at = usize::try_from(number).ok();
                if at == Some(self.done.len()) {
                    return Err(Error::new(Kind::Internal, "refers to current build stage"));
                }
                let stage = at.and_then(|at| self.done.get(at));
                stage.ok_or_else(|| Error::new(Kind::Internal, "index out of bounds"))?.1.clone()
            }
            (None, Err(_)) => Some(self.image(from, self.options.platform.as_ref()).await?),
        };
        let daemon = Arc::clone(&self.daemon);
        blocking(move || Source::of_image(&daemon.images, image.as_ref()).map(Arc::new)).await
    }

    /// Whether a step has been done before; it counts as done then.
    async fn probe(&self, present: &mut Present, config: &Config) -> Result<bool> {
        let Some(found) = present.cache.probe(present.image.as_ref(), config)? else { return Ok(false) };
        self.output.print(" ---> Using cache\n").await;
        present.image = Some(found);
        Ok(true)
    }

    /// Makes a step's image of its container.
    async fn commit(&self, present: &mut Present, container: String, config: Config) -> Result<()> {
        let step = self.done_by(present, &container, &config)?;
        let daemon = Arc::clone(&self.daemon);
        present.image = Some(blocking(move || daemon.images.add_step(&step)).await?);
        Ok(())
    }

    fn done_by(&self, present: &Present, container: &str, config: &Config) -> Result<image::Step> {
        let encoded = |config: &Config| {
            serde_json::to_value(config)
                .map_err(|error| Error::internal("encoding an image's settings", &error))
        };
        Ok(image::Step {
            parent: present.image.clone(),
            platform: self.options.platform.clone().unwrap_or_else(Platform::of_host),
            container: container.to_owned(),
            author: present.state.author.clone(),
            config: encoded(&present.state.config)?,
            container_config: encoded(config)?,
            command: config.cmd.clone().unwrap_or_default().join(" "),
        })
    }
}

/// The settings of a step whose container was made of them, as dockerd leaves them then: named by it, and what a health check
/// leaves open is the parent's.
fn as_created(present: &mut Present, config: Config, id: &str) -> Config {
    let before = present.image.as_ref().and_then(|image| image.config().healthcheck);
    let before: Option<HealthConfig> = before.and_then(|check| serde_json::from_value(check).ok());
    let own = &mut present.state.config.healthcheck;
    if let (Some(own), Some(before)) = (own.as_mut(), &before) {
        image_config::fill(own, before);
    }
    let labels = Some(config.labels.clone().unwrap_or_default());
    Config { hostname: short(id).to_owned(), labels, healthcheck: own.clone(), ..config }
}

/// What the history knows a step by, as a command that nothing runs.
fn with_comment(config: &Config, comment: &[&str]) -> Config {
    let mut words = shell(config);
    words.extend(comment.iter().map(|word| (*word).to_owned()));
    Config { cmd: Some(words), ..config.clone() }
}

/// All that an instruction's sources mean.
fn find(source: &Source, asked: &[String], name: &str) -> Result<Vec<Info>> {
    let failed = |text: String| Error::new(Kind::Internal, format!("{name} failed: {text}"));
    let mut infos = Vec::new();
    for one in asked {
        if one.starts_with("http://") || one.starts_with("https://") {
            return Err(match name {
                "COPY" => failed("source can't be a URL for COPY".to_owned()),
                _ => Error::new(
                    Kind::NotImplemented,
                    format!(
                        "ADD failed: {one}: files are not fetched from URLs: put them into the context, or RUN a program that does"
                    ),
                ),
            });
        }
        infos.extend(source.find(one).map_err(|error| failed(error.message))?);
    }
    if infos.is_empty() {
        return Err(failed("no source files were specified".to_owned()));
    }
    Ok(infos)
}
