//! What an operator asks about one user's mail, answered by the user's holder; whom nobody holds is opened by whoever is to have them.

use std::{sync::Arc, time::Duration};

use affinity::UserName;
use serde::de::DeserializeOwned;

use super::{Node, operate};
use crate::forward::{
    Held,
    frames::{AtHolder, Request},
    held::Use,
    route::{Route, Router},
};

/// Where the answer is from.
#[derive(Debug)]
pub enum Answer<T> {
    /// This node holds the user: it is yours to give.
    Here(Held),
    /// The holder gave it.
    There(T),
}

/// Asks the holder within `limit`, if that is another node.
pub async fn ask<T: DeserializeOwned>(
    node: &Arc<Node>,
    user: &UserName,
    request: impl Fn() -> Request,
    limit: Duration,
) -> Result<Answer<T>, String> {
    let mut router = Router::new(node, user.clone(), Use::Delivery);
    loop {
        match router.next().await.map_err(|error| error.to_string())? {
            Route::Here(held) => return Ok(Answer::Here(held)),
            Route::There { node: holder, placement } => match operate::ask::<AtHolder<T>>(node, &holder, &request(), limit).await {
                Ok(AtHolder::Done(answer)) => return answer.map(Answer::There),
                Ok(AtHolder::NotMine(redirect)) => router.not_mine(redirect).map_err(|error| error.to_string())?,
                Err(reason) => router.unreachable(placement, reason),
            },
        }
    }
}
