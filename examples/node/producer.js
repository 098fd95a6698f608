// Push orders with ioredis. A login is the queue's name and password; Redis' own commands do the rest.
const Redis = require('ioredis');

const [host, port] = (process.env.PEPPERBUS || '127.0.0.1:12017').split(':');
const queue = process.env.QUEUE || 'orders';
const bus = new Redis({
  host, port: Number(port), username: queue, password: process.env.PASSWORD || 'secret',
  maxRetriesPerRequest: 0, // ioredis would push again by itself when an answer is lost: maybe a second job
});

async function main() {
  const answer = JSON.parse(await bus.call('LPUSH', `${queue}/new`, JSON.stringify({ order: 1 })));
  console.log('pushed', answer.jobs[0]); // a string: the number is too large for JavaScript's
  await bus.zadd(queue, '+1', JSON.stringify({ order: 2 })); // not before in a second
  await bus.rpush(queue, JSON.stringify({ order: 3 })); // ahead of all that waits
  console.log('and two more');
  await bus.quit();
}

main().catch((error) => { console.error(error.message); process.exit(1); });
