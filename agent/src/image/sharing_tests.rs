//! Images from other nodes, which are other stores of images here: honest ones, liars, slow ones; and a registry that does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::giving::NotGiven;
use super::layers::Promised;
use super::progress::Progress;
use super::registry::auth::Credentials;
use super::registry::pull::PullOptions;
use super::sharing::{Found, Part, Peers, PieceError, Source, Step};
use super::*;
use crate::scratch::Folder;
use crate::tar::{Entry, Writer};

/// Several pieces.
const SIZE: usize = 9 << 20;

/// As many nodes as the leader names at once.
const NAMED: usize = 8;

struct Node {
    images: Images,
    folder: Folder,
}

async fn given(
    images: &Images,
    part: Part,
    header: Option<&str>,
    (offset, length): (u64, usize),
) -> Result<Bytes, NotGiven> {
    let by = images.marks_of(part).for_credentials(header).ok_or(NotGiven::NotHere)?;
    images.find_piece(part, by, (offset, length)).await?.read(length).await
}

impl Node {
    fn new() -> Self {
        let folder = Folder::new("sharing");
        let store = Store::open(&folder.path().join("store")).unwrap();
        let images = Images::open(&folder.path().join("root"), store, Arc::default()).unwrap();
        images.keep_marks().unwrap();
        Self { images, folder }
    }

    /// With the image, which a registry gives to everybody.
    fn with(image: &Packed) -> Self {
        Self::with_by(image, None)
    }

    /// With the image, pulled by these credentials.
    fn with_by(image: &Packed, header: Option<&str>) -> Self {
        let node = Self::new();
        let mark = node.images.mark_of(&Credentials::of_header(header));
        for blob in [&image.manifest, &image.config, &image.layer] {
            node.images.mark(Digest::of(blob), mark).unwrap();
        }
        node.load(image);
        node
    }

    /// As from an archive.
    fn load(&self, image: &Packed) {
        let images = &self.images;
        let manifest = images.add_blob(&image.manifest).unwrap();
        let promised = Promised { blob: Some(Digest::of(&image.layer)), ..Promised::default() };
        let layer = images.add_layer(image.layer.as_slice(), &promised).unwrap();
        let record = ImageRecord { manifests: vec![manifest.digest], ..ImageRecord::default() };
        let name = reference(image);
        drop(images.add_named_image(&image.config, record, &[name]).unwrap());
        drop(layer);
    }

    async fn pull(&self, image: &Packed, others: Arc<dyn Peers>) -> Result<()> {
        self.pull_by(image, None, others).await
    }

    async fn pull_by(&self, image: &Packed, header: Option<&str>, others: Arc<dyn Peers>) -> Result<()> {
        let credentials = Credentials::of_header(header);
        let options = PullOptions { reference: reference(image), platform: None, credentials };
        self.images.pull_shared(&options, others, &Progress::default()).await
    }

    /// Bytes of a blob, as for a task with these credentials.
    async fn give(&self, part: Part, header: Option<&str>, range: (u64, usize)) -> Result<Bytes, NotGiven> {
        given(&self.images, part, header, range).await
    }

    fn has(&self, image: &Packed) -> bool {
        self.images.find(&reference(image).familiar()).is_ok()
            && self.images.read_blob(Digest::of(&image.layer)).unwrap() == image.layer
    }
}

struct Packed {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn packed() -> Packed {
    let content: Vec<u8> = (0..SIZE).map(|at| u8::try_from(at * 7 / 1000 % 251).unwrap()).collect();
    let mut writer = Writer::new(Vec::new());
    let entry = Entry { path: b"big".to_vec(), mode: 0o644, size: SIZE as u64, ..Entry::default() };
    writer.append(&entry).unwrap();
    writer.write_all(&content).unwrap();
    let layer = writer.finish().unwrap();
    let about = |bytes: &[u8], media: &str| json!({"mediaType": media, "digest": Digest::of(bytes), "size": bytes.len()});
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": spec::OCI_MANIFEST,
        "config": about(&config, "application/vnd.oci.image.config.v1+json"),
        "layers": [about(&layer, spec::OCI_LAYER)],
    });
    Packed { manifest: serde_json::to_vec(&manifest).unwrap(), config, layer }
}

/// Of a registry where nobody listens.
fn reference(image: &Packed) -> Reference {
    format!("127.0.0.1:1/app@{}", Digest::of(&image.manifest)).parse().unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Of layers: a byte of each piece is another one.
    Liar,
    /// After so many answers it is gone.
    Dies(usize),
    Slow,
    /// Of layers: a byte at once.
    Drips,
    /// It can't be reached.
    Gone,
    /// It had it once, and looks for it as well: the leader names it until it knows that.
    Waits,
    /// The same, after a moment.
    Stuck,
}

/// What the leader and other nodes are to one that pulls.
#[derive(Debug, Default)]
struct Others {
    nodes: BTreeMap<String, (Images, Manner)>,
    /// Named when there are no others.
    later: BTreeSet<String>,
    asked: Mutex<BTreeMap<String, usize>>,
    blamed: Mutex<BTreeSet<String>>,
    /// Those of whom the leader knows that they look for a blob themselves.
    waited: Mutex<BTreeMap<Digest, BTreeSet<String>>>,
    /// The credentials of the task.
    header: Option<String>,
}

impl Others {
    fn of(nodes: &[(&str, &Node, Manner)]) -> Arc<Self> {
        Self::in_turn(nodes, &[])
    }

    fn in_turn(first: &[(&str, &Node, Manner)], later: &[(&str, &Node, Manner)]) -> Arc<Self> {
        let nodes = first.iter().chain(later);
        let nodes = nodes.map(|(name, node, manner)| ((*name).to_owned(), (node.images.clone(), *manner)));
        let later = later.iter().map(|(name, ..)| (*name).to_owned()).collect();
        Arc::new(Self { nodes: nodes.collect(), later, ..Self::default() })
    }

    async fn answer(
        &self,
        from: Source,
        part: Part,
        (offset, length): (u64, u32),
    ) -> Result<Bytes, PieceError> {
        let (images, manner) = &self.nodes[&from.node];
        let waiting = from.node.clone();
        let count = {
            let mut asked = locked(&self.asked);
            let count = asked.entry(from.node).or_default();
            *count += 1;
            *count
        };
        match manner {
            Manner::Dies(after) if count > *after => return Err(PieceError::Lost("gone".to_owned())),
            Manner::Slow => tokio::time::sleep(Duration::from_millis(30)).await,
            Manner::Stuck => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Err(PieceError::Lost("no route to host".to_owned()));
            }
            Manner::Gone => return Err(PieceError::Lost("no route to host".to_owned())),
            Manner::Waits => {
                let _new = locked(&self.waited).entry(part.blob).or_default().insert(waiting);
                return Err(PieceError::NotYet);
            }
            _ => {}
        }
        let given = given(images, part, self.header.as_deref(), (offset, length as usize)).await;
        let bytes = given.map_err(|why| match why {
            NotGiven::NotHere => PieceError::NotHere,
            NotGiven::NotYet => PieceError::NotYet,
        })?;
        // Documents are smaller.
        if bytes.len() < 100_000 {
            return Ok(bytes);
        }
        match manner {
            Manner::Liar => {}
            Manner::Drips => return Ok(bytes.slice(..1)),
            _ => return Ok(bytes),
        }
        let mut wrong = bytes.to_vec();
        wrong[50_000] ^= 1;
        Ok(wrong.into())
    }
}

impl Peers for Others {
    fn find(&self, part: Part, step: Step, avoid: BTreeSet<String>) -> BoxFuture<'_, Option<Found>> {
        let blamed = locked(&self.blamed).clone();
        let waited = locked(&self.waited).get(&part.blob).cloned().unwrap_or_default();
        let may = |node: &&String| {
            let is_left_out = avoid.contains(*node) || blamed.contains(*node) || waited.contains(*node);
            step == Step::Seeks && !is_left_out
        };
        let source = |node: &String| Source { node: node.clone(), address: String::new() };
        let (later, first): (Vec<_>, Vec<_>) =
            self.nodes.keys().filter(may).partition(|node| self.later.contains(*node));
        let named = if first.is_empty() { later } else { first };
        let sources: Vec<_> = named.into_iter().map(source).take(NAMED).collect();
        let registry = sources.is_empty();
        std::future::ready(Some(Found { sources, registry })).boxed()
    }

    fn piece(&self, from: Source, part: Part, range: (u64, u32)) -> BoxFuture<'_, Result<Bytes, PieceError>> {
        self.answer(from, part, range).boxed()
    }

    fn blame(&self, node: &str, _: Part) {
        let _new = locked(&self.blamed).insert(node.to_owned());
    }
}

fn blamed(others: &Others) -> Vec<String> {
    locked(&others.blamed).iter().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_an_image_comes_from_all_who_have_it() {
    let image = packed();
    let (first, second, node) = (Node::with(&image), Node::with(&image), Node::new());
    let others = Others::of(&[("a", &first, Manner::Honest), ("b", &second, Manner::Honest)]);
    node.pull(&image, others.clone()).await.unwrap();
    assert!(node.has(&image));
    let asked = locked(&others.asked).clone();
    assert!(asked.values().all(|count| *count >= 2), "each gives pieces: {asked:?}");
    assert_eq!(blamed(&others), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lies_among_others_is_found_out() {
    let image = packed();
    let (first, second, node) = (Node::with(&image), Node::with(&image), Node::new());
    let others = Others::of(&[("a", &first, Manner::Liar), ("b", &second, Manner::Honest)]);
    node.pull(&image, others.clone()).await.unwrap();
    assert!(node.has(&image));
    assert_eq!(blamed(&others), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_alone_is_never_believed() {
    let image = packed();
    let (first, node) = (Node::with(&image), Node::new());
    let others = Others::of(&[("a", &first, Manner::Liar)]);
    let error = node.pull(&image, others.clone()).await.unwrap_err();
    assert!(error.message.contains("connection refused"), "the registry's turn: {error}");
    assert!(node.images.find(&reference(&image).familiar()).is_err());
    assert_eq!(blamed(&others), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_began_rightly_is_not_taken_for_the_liar_that_went_on() {
    let image = packed();
    let (first, second, third, node) =
        (Node::with(&image), Node::with(&image), Node::with(&image), Node::new());
    // The manifest, the config, and a piece.
    let begins = [("a", &first, Manner::Dies(3))];
    let goes_on = [("b", &second, Manner::Liar), ("c", &third, Manner::Honest)];
    let others = Others::in_turn(&begins, &goes_on);
    node.pull(&image, others.clone()).await.unwrap();
    assert!(node.has(&image));
    assert_eq!(blamed(&others), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_crumbs_is_passed_over() {
    let image = packed();
    let (first, second, node) = (Node::with(&image), Node::with(&image), Node::new());
    let others = Others::of(&[("a", &first, Manner::Drips), ("b", &second, Manner::Honest)]);
    node.pull(&image, others.clone()).await.unwrap();
    assert!(node.has(&image));
    assert_eq!(blamed(&others), Vec::<String>::new());
    let asked = locked(&others.asked).clone();
    // Those of the documents too, and those that are on their way when it is enough.
    assert!(asked["a"] < 40, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crumbs_alone_end_at_the_registry() {
    let image = packed();
    let (first, node) = (Node::with(&image), Node::new());
    let others = Others::of(&[("a", &first, Manner::Drips)]);
    let error = node.pull(&image, others.clone()).await.unwrap_err();
    assert!(error.message.contains("connection refused"), "the registry's turn: {error}");
    let asked = locked(&others.asked).clone();
    assert!(asked["a"] < 40, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_nobody_reaches_do_not_keep_the_registry_waiting() {
    let image = packed();
    let (first, node) = (Node::with(&image), Node::new());
    let gone: Vec<String> = (10..74).map(|number| format!("n{number}")).collect();
    let gone: Vec<_> = gone.iter().map(|name| (name.as_str(), &first, Manner::Gone)).collect();
    // It gives the documents and dies.
    let others = Others::in_turn(&[("a", &first, Manner::Dies(2))], &gone);
    let error = node.pull(&image, others.clone()).await.unwrap_err();
    assert!(error.message.contains("connection refused"), "{error}");
    let asked = locked(&others.asked).len();
    assert!(asked <= 1 + 2 * NAMED, "{asked} nodes were asked for the layer");
    let others = Others::of(&gone);
    let error = node.pull(&image, others.clone()).await.unwrap_err();
    assert!(error.message.contains("connection refused"), "{error}");
    let asked = locked(&others.asked).len();
    assert!(asked <= 4, "{asked} nodes were asked for the manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_it_no_more_is_not_waited_for() {
    let image = packed();
    let (first, second, node) = (Node::with(&image), Node::with(&image), Node::new());
    // The leader learns of each blob anew that the second one looks for it.
    let waits = [("b", &second, Manner::Waits)];
    let others = Others::in_turn(&waits, &[("a", &first, Manner::Honest)]);
    node.pull(&image, others.clone()).await.unwrap();
    assert!(node.has(&image));
    let asked = locked(&others.asked).clone();
    assert!(asked["b"] < 200, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_when_one_dies() {
    let image = packed();
    let (first, second, node) = (Node::with(&image), Node::with(&image), Node::new());
    let others = Others::of(&[("a", &first, Manner::Dies(3)), ("b", &second, Manner::Honest)]);
    node.pull(&image, others.clone()).await.unwrap();
    assert!(node.has(&image));
    assert_eq!(blamed(&others), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_is_given_on() {
    let image = packed();
    let (first, second, third) = (Node::with(&image), Node::new(), Node::new());
    let of_first = Others::of(&[("a", &first, Manner::Slow)]);
    let of_second = Others::of(&[("b", &second, Manner::Honest)]);
    let next = async {
        // Before that it is asked for an image that it has never heard of.
        let named = Digest::of(&image.manifest);
        let part = Part { image: named, blob: named };
        while second.give(part, None, (0, 1)).await == Err(NotGiven::NotHere) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        third.pull(&image, of_second.clone()).await
    };
    let (second_has, third_has) = tokio::join!(second.pull(&image, of_first), next);
    second_has.unwrap();
    third_has.unwrap();
    assert!(second.has(&image) && third.has(&image));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_belongs_to_the_image_is_given() {
    let image = packed();
    let node = Node::with(&image);
    let other = node.images.add_blob(b"somebody else's").unwrap();
    let of = |image: Digest, blob: Digest| Part { image, blob };
    let named = Digest::of(&image.manifest);
    let config = node.give(of(named, Digest::of(&image.config)), None, (0, 1 << 20)).await.unwrap();
    assert_eq!(config, image.config);
    let tail = (image.layer.len() as u64 - 5, 10);
    let tail = node.give(of(named, Digest::of(&image.layer)), None, tail).await;
    assert_eq!(tail.unwrap(), image.layer[image.layer.len() - 5..]);
    for (image, blob, offset) in [
        (named, other.digest, 0),
        (Digest::of(&image.config), Digest::of(&image.layer), 0),
        (named, Digest::of(&image.layer), image.layer.len() as u64),
        (named, Digest::of(&image.layer), u64::MAX - 5),
        (named, Digest::of(&image.layer), u64::MAX / 2 - 5),
    ] {
        assert_eq!(node.give(of(image, blob), None, (offset, 10)).await, Err(NotGiven::NotHere));
    }
}

/// `{"username":"user","password":"..."}`.
const USER: &str = "eyJ1c2VybmFtZSI6InVzZXIiLCJwYXNzd29yZCI6InNlY3JldCJ9";
const OTHER: &str = "eyJ1c2VybmFtZSI6Im90aGVyIiwicGFzc3dvcmQiOiJzZWNyZXQifQ==";

fn of_layer(image: &Packed) -> Part {
    Part { image: Digest::of(&image.manifest), blob: Digest::of(&image.layer) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_by_credentials_is_for_those_who_have_them() {
    let image = packed();
    let node = Node::with_by(&image, Some(USER));
    let layer = of_layer(&image);
    for header in [None, Some(OTHER), Some("e30=")] {
        assert_eq!(node.give(layer, header, (0, 10)).await, Err(NotGiven::NotHere), "{header:?}");
    }
    assert_eq!(node.give(layer, Some(USER), (0, 10)).await.unwrap(), image.layer[..10]);
    // Whoever gets it for a task gives it on for such tasks only.
    let others = Others::of(&[("a", &node, Manner::Honest)]);
    let curious = Node::new();
    curious.pull(&image, others).await.unwrap_err();
    let others = Arc::new(Others {
        nodes: [("a".to_owned(), (node.images.clone(), Manner::Honest))].into(),
        header: Some(USER.to_owned()),
        ..Others::default()
    });
    let second = Node::new();
    second.pull_by(&image, Some(USER), others).await.unwrap();
    assert!(second.has(&image));
    assert_eq!(second.give(layer, None, (0, 10)).await, Err(NotGiven::NotHere));
    assert_eq!(second.give(layer, Some(USER), (0, 10)).await.unwrap(), image.layer[..10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_by_no_registry_is_given_to_nobody() {
    let image = packed();
    let node = Node::new();
    node.load(&image);
    assert!(node.has(&image));
    for header in [None, Some(USER)] {
        assert_eq!(node.give(of_layer(&image), header, (0, 10)).await, Err(NotGiven::NotHere));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_whose_credentials_something_came_is_known_after_a_restart_and_goes_with_it() {
    let image = packed();
    let Node { images, folder } = Node::with_by(&image, Some(USER));
    let salt = images.salted(Vec::new()).salt;
    drop(images);
    let open = || {
        let store = Store::open(&folder.path().join("store")).unwrap();
        let images = Images::open(&folder.path().join("root"), store, Arc::default()).unwrap();
        images.keep_marks().unwrap();
        images
    };
    let images = open();
    assert_eq!(images.salted(Vec::new()).salt, salt);
    assert_eq!(given(&images, of_layer(&image), Some(USER), (0, 10)).await.unwrap(), image.layer[..10]);
    assert_eq!(given(&images, of_layer(&image), None, (0, 10)).await, Err(NotGiven::NotHere));
    let _removed = images.remove(&reference(&image).familiar(), &RemoveOptions::default()).unwrap();
    assert_eq!(images.marks_on(Digest::of(&image.layer)), []);
    drop(images);
    assert_eq!(open().marks_on(Digest::of(&image.layer)), []);
}

/// Somebody's public image lists the layer of a private one, by its digests: on a node that has that one the layer is there at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_a_manifest_merely_names_is_not_given() {
    let private = packed();
    let listing = Packed { manifest: [&private.manifest[..], b"\n"].concat(), ..packed() };
    let node = Node::with_by(&private, Some(USER));
    for blob in [&listing.manifest, &listing.config] {
        let anybody = node.images.mark_of(&Credentials::default());
        node.images.mark(Digest::of(blob), anybody).unwrap();
    }
    let named = Digest::of(&listing.manifest);
    let layer = Part { image: named, blob: Digest::of(&private.layer) };
    // While it is pulled, and when it is here.
    let offer = node.images.offer(named, node.images.mark_of(&Credentials::default()));
    offer.add([Digest::of(&listing.config), layer.blob]);
    assert_eq!(node.give(layer, None, (0, 10)).await, Err(NotGiven::NotHere));
    drop(offer);
    node.load(&listing);
    let config = Part { image: named, blob: Digest::of(&listing.config) };
    assert_eq!(node.give(config, None, (0, 5)).await.unwrap(), listing.config[..5]);
    assert_eq!(node.give(layer, None, (0, 10)).await, Err(NotGiven::NotHere));
    assert_eq!(node.give(layer, Some(USER), (0, 10)).await.unwrap(), private.layer[..10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_wait_for_a_pull_that_fails_do_not_try_it_one_after_another() {
    let image = packed();
    let (first, node) = (Node::with(&image), Node::new());
    let others = Others::of(&[("a", &first, Manner::Stuck)]);
    let pulls = (0..25).map(|_| node.pull(&image, others.clone()));
    for pulled in futures_util::future::join_all(pulls).await {
        let error = pulled.unwrap_err();
        assert!(error.message.contains("connection refused"), "{error}");
    }
    let asked = locked(&others.asked).clone();
    assert_eq!(asked["a"], 1, "one of them has asked");
    // And whoever comes later does.
    drop(node.pull(&image, others.clone()).await.unwrap_err());
    assert_eq!(locked(&others.asked)["a"], 2);
}
