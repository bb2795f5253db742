// Calls the vendor's SDK for Node: on each line options and calls in, and their outcomes out.
"use strict";

const COS = require("cos-nodejs-sdk-v5");

const outcome = (cos, { method, body, ...call }) =>
  new Promise((resolve) =>
    cos[method]({ ...call, Body: body && COS.util.json2xml(body) }, (error, data) =>
      resolve(
        error
          ? { error: { status: error.statusCode, code: error.code, message: error.message } }
          : { data },
      ),
    ),
  );

(async () => {
  for await (const line of require("readline").createInterface({ input: process.stdin })) {
    const { options, calls } = JSON.parse(line);
    const cos = new COS(options);
    const outcomes = [];
    for (const call of calls) outcomes.push(await outcome(cos, call));
    const { SystemClockOffset } = cos.options;
    process.stdout.write(JSON.stringify({ outcomes, SystemClockOffset }) + "\n");
  }
})();
