//! Several managers in one process.

mod admission;
mod entering;
mod leading;
mod quorum;
mod rights;
mod roles;
mod rotating;

use ketch_cluster::store::StoreAction;

use super::{LeadError, Leader};
use crate::fixture::objects;
use crate::manager::ChangeError;

/// A change that only adds a node of that number.
async fn add_node(leader: &Leader, number: u128) -> Result<(), ChangeError<()>> {
    leader.change(|_, _, _| Ok(((), vec![StoreAction::Create(objects::node(number).into())]))).await
}

fn lead_error<E>(error: ChangeError<E>) -> LeadError {
    match error {
        ChangeError::Lead(error) => error,
        _ => panic!("it was judged"),
    }
}
