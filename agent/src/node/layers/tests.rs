//! Turns of those who are given something.

use super::*;
use crate::image::digest::Digest;
use crate::image::progress::Progress;
use crate::image::registry::auth::Credentials;
use crate::image::registry::pull::PullOptions;
use crate::scratch::Folder;
use crate::store::Store;

/// One turn for all.
fn uploads() -> (Uploads, Folder) {
    let folder = Folder::new("uploads");
    let store = Store::open(&folder.path().join("store")).unwrap();
    let images = Images::open(&folder.path().join("root"), store, Arc::default()).unwrap();
    images.keep_marks().unwrap();
    let sharing = LayerSharing { port: 0, rate: None, uploads: 1 };
    (
        Uploads { images, sharing, turns: Arc::new(Semaphore::new(1)), rate: None, counted: Arc::default() },
        folder,
    )
}

/// It has everything, and gives nothing for now.
#[derive(Debug)]
struct Silent;

impl Peers for Silent {
    fn find(&self, _: Part, _: Step, _: BTreeSet<String>) -> BoxFuture<'_, Option<Found>> {
        let source = Source { node: "a".to_owned(), address: String::new() };
        std::future::ready(Some(Found { sources: vec![source], registry: false })).boxed()
    }

    fn piece(&self, _: Source, _: Part, _: (u64, u32)) -> BoxFuture<'_, Result<Bytes, PieceError>> {
        std::future::pending().boxed()
    }

    fn blame(&self, _: &str, _: Part) {}
}

#[tokio::test]
async fn what_has_not_come_yet_takes_nobodys_turn() {
    let (uploads, _folder) = uploads();
    let image = Digest::of(b"an image");
    let reference = format!("127.0.0.1:1/app@{image}").parse().unwrap();
    let options = PullOptions { reference, platform: None, credentials: Credentials::default() };
    let images = uploads.images.clone();
    let pull =
        tokio::spawn(
            async move { images.pull_shared(&options, Arc::new(Silent), &Progress::default()).await },
        );
    let name = name_of(Part { image, blob: Digest::of(b"a layer") });
    let by = loop {
        if let Some(by) = uploads.marks(&name).for_credentials(None) {
            break by;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let asked = PieceAsked { name, task: TaskId::of(1), offset: 0, length: 10 };
    let given = uploads.give(asked, by);
    tokio::pin!(given);
    let early = timeout(Duration::from_millis(50), &mut given).await;
    assert!(early.is_err(), "it waits: {early:?}");
    assert_eq!(uploads.turns.available_permits(), 1);
    pull.abort();
    assert_eq!(given.await.unwrap_err(), NoPiece::NotHere);
}
