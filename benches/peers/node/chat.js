// A chat server on an event loop, for comparison: the paradigm that the paper names beside processes and
// threads. Speaks the same lines as the Go server, plain text; token, log and durability are the same.
//
//	node chat.js PORT LOG-FILE TOKEN-FILE
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const net = require('node:net');

const [port, logFile, tokenFile] = process.argv.slice(2);
const sha256 = (text) => crypto.createHash('sha256').update(text).digest();
const hash = sha256(fs.readFileSync(tokenFile, 'utf8').trim());
const log = fs.openSync(logFile, 'a', 0o640);
const clients = new Set();
let sequence = 0, waiting = [], unsynced = false;

// What one turn of the loop has brought goes out together.
function handOut() {
  const batch = Buffer.from(waiting.join(''));
  waiting = [];
  fs.writeSync(log, batch);
  unsynced = true;
  for (const client of clients) {
    // Nobody is dropped: whoever is too far behind keeps the others from talking on.
    if (!client.write(batch)) clients.forEach((other) => other.pause());
  }
}
setInterval(() => {
  if (unsynced) fs.fdatasync(log, (error) => error && console.error(error));
  unsynced = false;
}, 1000);

net.createServer({ noDelay: true }, (client) => {
  let name = null, rest = '';
  client.setEncoding('utf8');
  client.on('drain', () => {
    if ([...clients].every((other) => !other.writableNeedDrain)) clients.forEach((other) => other.resume());
  });
  client.on('error', () => client.destroy());
  client.on('close', () => clients.delete(client));
  client.on('data', (data) => {
    const lines = (rest + data).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (name === null) {
        const [word, token, who] = line.split(' ');
        if (word !== 'join' || !crypto.timingSafeEqual(sha256(token ?? ''), hash)) return client.destroy();
        name = who;
        client.write('ok\n');
        clients.add(client);
      } else if (line.startsWith('say ')) {
        if (waiting.length === 0) setImmediate(handOut);
        sequence += 1;
        waiting.push(`${sequence} ${name} ${line.slice(4)}\n`);
      }
    }
  });
}).listen(Number(port), '127.0.0.1');
