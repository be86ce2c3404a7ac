// "server.mjs ADDRESS PORT": Node's http server as it comes, which closes idle connections after 5 s. Counts at /count.
import { createServer } from 'node:http';

let count = 0;
createServer((request, response) => {
  if (request.url === '/health') count += 1;
  response.end(request.url === '/count' ? String(count) : 'OK');
}).listen(Number(process.argv[3]), process.argv[2], () => console.log('listening'));
