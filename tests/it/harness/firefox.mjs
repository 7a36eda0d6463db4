// Uses the console in Firefox: node firefox.mjs URL. Prints what it saw as one line of JSON. A call of the recorder
// goes on when it begins.

import puppeteer from "puppeteer-core";

const url = process.argv[2];
const browser = await puppeteer.launch({ browser: "firefox", executablePath: "/usr/bin/firefox-esr", headless: true });
const seen = { errors: [], foreign: [] };
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) seen.errors.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) seen.foreign.push(request.url());
  });
  await page.setViewport({ width: 1200, height: 900 });
  await page.goto(`${url}#live`);
  await page.waitForSelector(".card .meter");
  // A second tab takes the same events.
  const other = await browser.newPage();
  await other.goto(`${url}#live`);
  await other.waitForSelector(".card .meter");
  await other.close();
  await page.bringToFront();

  await page.goto(`${url}#recordings`);
  await page.waitForSelector(".row");
  const found = page.waitForResponse((response) => response.url().includes("q=zoe"));
  await page.type("#filters input[type=search]", "zoe");
  await found;
  await page.waitForFunction(() => document.querySelectorAll(".row").length === 1);
  await page.click(".row");
  await page.waitForSelector(".player[data-drawn]");
  await page.focus(".stage");
  for (const key of ["+", "+", "+", "n"]) await page.keyboard.press(key);
  await page.waitForSelector("[data-drawn=fine]");
  await page.click(".play");
  await page.waitForFunction(() => document.querySelector("audio").currentTime > 2);
  await page.click("#tab-live");
  await page.waitForFunction(() => document.querySelector("#bar").checkVisibility());
  seen.plays = await page.evaluate(() => !document.querySelector("audio").paused);
  await page.setViewport({ width: 390, height: 800 });
  await page.click("#bar-name");
  await page.waitForSelector(".player");
  seen.fits = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
} catch (error) {
  seen.errors.push(error.message);
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
