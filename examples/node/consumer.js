// An HTTP service that the bus posts jobs to: node:http alone.
const http = require('node:http');

const done = new Set(); // yours is a table in the database that the work is in

async function work(id, order) {
  if (done.has(id)) return;
  console.log('order', order.order);
  done.add(id);
}

http.createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const answer = (status, text = '') => { response.writeHead(status); response.end(text); };
  let order;
  try {
    order = JSON.parse(Buffer.concat(pieces));
  } catch (error) {
    return answer(422, `no JSON: ${error.message}`); // no further try will change that
  }
  try {
    await work(request.headers['x-pepperbus-job-id'], order);
    answer(200);
  } catch (error) {
    answer(500, error.message); // tried again, this text is shown
  }
}).listen(Number(process.env.PORT || 8080), '127.0.0.1');
