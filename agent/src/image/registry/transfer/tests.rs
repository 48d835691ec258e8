//! Who joins whose transfer, and what becomes of it when that one fails. Nobody listens at the registry.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::image::registry::auth::Credentials;
use crate::image::registry::pull::PullOptions;
use crate::image::registry::{Settings, repository::Repository};
use crate::image::sharing::{Found, Part, Peers, PieceError, Source, Step};
use crate::image::spec::OCI_LAYER;
use crate::scratch::Folder;
use crate::store::Store;

/// One node, which gives nothing and says so when it is told to; after that there is none.
#[derive(Debug, Default)]
struct Silent {
    speaks: Notify,
    sought: AtomicUsize,
}

impl Peers for Silent {
    fn find(&self, _: Part, step: Step, _: BTreeSet<String>) -> BoxFuture<'_, Option<Found>> {
        let sought = match step {
            Step::Seeks => self.sought.fetch_add(1, Ordering::SeqCst),
            _ => 1,
        };
        let source = Source { node: "a".to_owned(), address: String::new() };
        let found = (sought == 0).then(|| Found { sources: vec![source], registry: false });
        std::future::ready(found).boxed()
    }

    fn piece(
        &self,
        _: Source,
        _: Part,
        _: (u64, u32),
    ) -> BoxFuture<'_, std::result::Result<Bytes, PieceError>> {
        async {
            self.speaks.notified().await;
            // The other pieces that are asked for at once.
            self.speaks.notify_one();
            Err(PieceError::NotHere)
        }
        .boxed()
    }

    fn blame(&self, _: &str, _: Part) {}
}

struct Case {
    images: Images,
    wanted: Wanted,
    options: PullOptions,
    _folder: Folder,
}

impl Case {
    fn new() -> Self {
        let folder = Folder::new("transfers");
        let store = Store::open(&folder.path().join("store")).unwrap();
        let images = Images::open(&folder.path().join("root"), store, Arc::default()).unwrap();
        images.set_registries(Settings { attempts: 1, ..Settings::default() });
        let digest = Digest::of(b"a layer");
        let wanted = Wanted { descriptor: Descriptor::new(OCI_LAYER.to_owned(), digest, 7), diff_id: digest };
        let reference = format!("127.0.0.1:1/app@{digest}").parse().unwrap();
        let options = PullOptions { reference, platform: None, credentials: Credentials::default() };
        Self { images, wanted, options, _folder: folder }
    }

    fn with_others(&self, peers: &Arc<Silent>) -> Arc<Origin> {
        let shared = Shared { image: Digest::of(b"a manifest"), peers: Arc::clone(peers) as Arc<dyn Peers> };
        Arc::new(Origin::shared(&self.images, &self.options, shared))
    }

    fn plain(&self) -> Arc<Origin> {
        let PullOptions { reference, credentials, .. } = &self.options;
        let endpoint = self.images.registries().endpoints(reference).remove(0);
        let repository = Arc::new(Repository::new(endpoint, reference, credentials, "pull"));
        Arc::new(Origin::of(&self.images, &self.options, repository))
    }

    async fn follow(&self, origin: &Arc<Origin>, joined: Joined) -> Error {
        self.images.follow(origin, joined, &self.wanted, &Progress::default()).await.unwrap_err()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_the_registry_alone_waits_for_no_nodes() {
    let case = Case::new();
    let silent = Arc::<Silent>::default();
    let (others, plain) = (case.with_others(&silent), case.plain());
    let waiting = case.images.transfer(&others, &case.wanted);
    assert!(waiting.is_own && !case.images.transfer(&others, &case.wanted).is_own);
    let joined = case.images.transfer(&plain, &case.wanted);
    assert!(joined.is_own);
    let error = case.follow(&plain, joined).await;
    assert!(error.message.contains("connection refused"), "{error}");
    assert!(!matches!(*waiting.transfer.phase.borrow(), Phase::Failed(_)), "that one waits still");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_one_began_is_begun_again_when_it_fails() {
    let case = Case::new();
    let (silent, own) = (Arc::<Silent>::default(), Arc::<Silent>::default());
    let (others, second) = (case.with_others(&silent), case.with_others(&own));
    let first = case.images.transfer(&others, &case.wanted);
    let joined = case.images.transfer(&second, &case.wanted);
    assert!(first.is_own && !joined.is_own);
    let ends = async {
        silent.speaks.notify_one();
        case.follow(&others, first).await
    };
    let follows = async {
        own.speaks.notify_one();
        case.follow(&second, joined).await
    };
    let (first, second) = tokio::join!(ends, follows);
    for error in [first, second] {
        assert!(error.message.contains("connection refused"), "{error}");
    }
    assert!(own.sought.load(Ordering::SeqCst) > 0, "its own nodes were asked");
}
