//! The rights that the documentation gives to producers: enough, and no more.

use std::process::Command;

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Error};

use crate::support::servers::{self, Pools};

const PAGE: &str = include_str!("../../docs/how-to/run-it-on-servers.md");
const SECRET: &str = "longshore-test";

/// The three patterns that the page gives to a user.
fn patterns(user: &str) -> Vec<String> {
    let page = PAGE.replace("\\\n", " ");
    let begins = format!("rabbitmqctl set_permissions {user} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&begins)).unwrap();
    line.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Administers the RabbitMQ of all tests.
pub fn rabbitmqctl(arguments: &[&str]) {
    let command = servers::rabbitmqctl();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{command} \"$@\""), "rabbitmqctl"]);
    let output = shell.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// A channel of a new user with the rights that the page gives to `like`.
async fn user(name: &str, like: &str) -> (Connection, Channel) {
    rabbitmqctl(&["add_user", name, SECRET]);
    let patterns = patterns(like);
    let mut arguments = vec!["set_permissions", name];
    arguments.extend(patterns.iter().map(String::as_str));
    rabbitmqctl(&arguments);
    let mut url = servers::amqp();
    url.set_username(name).unwrap();
    url.set_password(Some(SECRET)).unwrap();
    let connection =
        Connection::connect(url.as_str(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn publish(channel: &Channel, pool: &str) -> Result<bool, Error> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let sent = channel
        .basic_publish(
            "longshore".into(),
            pool.into(),
            options,
            b"{}",
            BasicProperties::default().with_delivery_mode(2),
        )
        .await?;
    Ok(sent.await?.is_ack())
}

/// A queue of its own that gets the outcomes.
async fn listen(channel: &Channel) -> Result<(), Error> {
    let options = QueueDeclareOptions::exclusive();
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    let name = queue.name().clone();
    let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name.clone(), "longshore.events".into(), "run.#".into(), bind, none).await?;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    channel.basic_consume(name, "".into(), options, FieldTable::default()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_have_the_rights_that_they_need_and_no_others() {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let (pool, one, other) = (format!("rights-{id}"), format!("one-{id}"), format!("other-{id}"));
    let pools = Pools::declare(vec![pool.clone()]).await;

    let (publishes, channel) = user(&one, "order-service").await;
    let published = publish(&channel, &pool).await;
    let listened = listen(&channel).await;
    let (listens, channel) = user(&other, "order-desk").await;
    let both = (publish(&channel, &pool).await, listen(&channel).await);
    let foreign = channel
        .basic_consume(
            format!("longshore.jobs.{pool}").into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await;

    drop((publishes, listens));
    for name in [&one, &other] {
        rabbitmqctl(&["delete_user", name]);
    }
    pools.delete().await;
    assert!(published.unwrap());
    assert!(listened.unwrap_err().to_string().contains("ACCESS_REFUSED"));
    assert!(both.0.unwrap());
    both.1.unwrap();
    assert!(foreign.map(|_| ()).unwrap_err().to_string().contains("ACCESS_REFUSED"));
}
