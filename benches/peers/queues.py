"""What the programs for job queues share: their arguments, the count of jobs in Redis, and the drain.

Not a program. Every job does one INCR of a counter, which stands for the claim that makes a job
idempotent. The first and the last job by that count leave the time in Redis as well.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pika
import pika.exceptions
import redis

PREFIX = "longshore-peer-"


def settle():
    """Takes the arguments of a program into the environment, where its workers find them."""
    command, amqp, store, queue, jobs, *limit = sys.argv[1:]
    if command not in ("enqueue", "drain") or not queue.startswith(PREFIX):
        raise SystemExit(f"the command is enqueue or drain, and a queue's name begins with {PREFIX}")
    if int(jobs) < 2:
        raise SystemExit("from the first job to the last are two at least")
    os.environ |= {
        "PEER_COMMAND": command,
        "PEER_AMQP": amqp,
        "PEER_REDIS": store,
        "PEER_QUEUE": queue,
        "PEER_JOBS": str(int(jobs)),
        "PEER_LIMIT": str(int(limit[0]) if limit else 600),
    }


def setting(name):
    return os.environ[f"PEER_{name}"]


class Counter:
    """The count of the jobs in Redis. Its connections belong to one process, and are made in it."""

    def __init__(self):
        self.client, self.process = None, None
        self.name, self.jobs = f"{setting('QUEUE')}:", int(setting("JOBS"))

    def link(self):
        if self.process != os.getpid():
            self.client = redis.Redis.from_url(setting("REDIS"))
            self.process = os.getpid()
        return self.client

    def count(self):
        """What a job does."""
        number = self.link().incr(self.name + "count")
        if number == 1:
            self.link().set(self.name + "first", time.time())
        elif number == self.jobs:
            self.link().set(self.name + "last", time.time())

    def read(self):
        """How many were counted, and when the first and the last were."""
        names = [self.name + part for part in ("count", "first", "last")]
        count, *times = self.link().mget(names)
        return (int(count or 0), *(time and float(time) for time in times))

    def forget(self):
        self.link().delete(*(self.name + part for part in ("count", "first", "last")))


class Broker:
    """The broker, looked at from outside of the peer."""

    def __enter__(self):
        self.connection = pika.BlockingConnection(pika.URLParameters(setting("AMQP")))
        return self

    def __exit__(self, *_):
        self.connection.close()

    def ready(self, queue):
        """How many messages are ready, or None if there is no such queue."""
        channel = self.connection.channel()
        try:
            answer = channel.queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker as refused:
            if refused.reply_code != 404:
                raise
            return None
        channel.close()
        return answer.method.message_count

    def kind(self, queue, arguments):
        """The type of a queue. It is asked for by declaring it as another type, which the broker refuses
        and says what it is."""
        channel = self.connection.channel()
        try:
            channel.queue_declare(
                queue, durable=True, arguments={**arguments, "x-queue-type": "classic"}
            )
        except pika.exceptions.ChannelClosedByBroker as refused:
            for kind in ("quorum", "stream"):
                if f"'{kind}'" in refused.reply_text and "x-queue-type" in refused.reply_text:
                    return kind
            raise
        channel.close()
        return "classic"

    def remove(self, queues, exchanges):
        channel = self.connection.channel()
        for queue in queues:
            channel.queue_delete(queue)
        for exchange in exchanges:
            channel.exchange_delete(exchange)


def enqueue(send, arguments):
    """Publishes all jobs by `send`, and prints how many a second. `send` returns when the broker has
    confirmed. The keys are random, as a producer's would be."""
    queue, jobs = setting("QUEUE"), int(setting("JOBS"))
    keys = [os.urandom(8).hex() for _ in range(jobs)]
    send_first, *others = keys
    # The first one connects and declares; it is there before the clock starts.
    send(send_first)
    start = time.monotonic()
    for key in others:
        send(key)
    seconds = time.monotonic() - start
    with Broker() as broker:
        kind, ready = broker.kind(queue, arguments), settled(broker, queue, jobs)
    result = {"jobs": ready, "jobs_per_second": round(len(others) / seconds, 1), "queue_type": kind}
    print(json.dumps(result))
    if kind != "quorum" or ready != jobs:
        raise SystemExit(f"{ready} of {jobs} jobs are in a {kind} queue")


def settled(broker, queue, jobs):
    """The messages of a queue. A quorum queue counts them a little later than it confirms them."""
    for _ in range(50):
        if broker.ready(queue) == jobs:
            break
        time.sleep(0.1)
    return broker.ready(queue)


def drain(command, queues, exchanges):
    """Starts the workers, waits until all jobs are counted, and prints how many a second. Ends the
    workers, and removes what the peer has made on the servers, whatever happens."""
    jobs, limit = int(setting("JOBS")), int(setting("LIMIT"))
    counter, workers = Counter(), None
    # SIGTERM is to clean as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    try:
        with Broker() as broker:
            ready = broker.ready(setting("QUEUE"))
        if ready != jobs:
            raise SystemExit(f"{ready} jobs are on the queue, not {jobs}")
        counter.forget()
        # `timeout` ends the workers even if this process dies and cannot.
        bound = ["timeout", "--foreground", "--kill-after=10", str(limit + 60)]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        workers = subprocess.Popen(
            [*bound, sys.executable, "-m", *command],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
        )
        until = time.monotonic() + limit
        while True:
            done, first, last = counter.read()
            if done >= jobs and last:
                break
            if workers.poll() is not None:
                raise SystemExit(f"the workers ended with {workers.returncode}")
            if time.monotonic() > until:
                raise SystemExit(f"given up after {limit} s with {done} of {jobs} jobs done")
            time.sleep(0.1)
        end(workers)
        done = counter.read()[0]
        with Broker() as broker:
            left = settled(broker, setting("QUEUE"), 0)
        result = {"jobs": done, "jobs_per_second": round((jobs - 1) / (last - first), 1), "left": left}
        print(json.dumps(result))
        if done != jobs or left:
            raise SystemExit("jobs were done twice, or were left unacknowledged")
    finally:
        if workers:
            end(workers)
        counter.forget()
        with Broker() as broker:
            broker.remove(queues, exchanges)


def end(workers):
    """Lets the workers finish what they have begun. Their session is their own, so that what remains of
    them can be killed with it."""
    if workers.poll() is not None:
        return
    workers.terminate()
    try:
        workers.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(workers.pid, signal.SIGKILL)
        workers.wait()


def main(send, arguments, command, queues, exchanges=()):
    """Runs a program: `send` publishes one job, `arguments` are those of its queue, `command` starts the
    workers, `queues` and `exchanges` are what the peer makes."""
    if setting("COMMAND") == "drain":
        return drain(command, queues, exchanges)
    with Broker() as broker:
        if broker.ready(setting("QUEUE")) is not None:
            raise SystemExit(f"there is a queue {setting('QUEUE')} already")
    try:
        return enqueue(send, arguments)
    except BaseException:
        with Broker() as broker:
            broker.remove(queues, exchanges)
        raise
